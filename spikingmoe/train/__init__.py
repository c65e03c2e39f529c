"""Training: the Lightning module, its loop, checkpoints."""
