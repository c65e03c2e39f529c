"""The integer network in torch: in batches, on any device, and with gradients for tuning on the grid."""

from hardware.lowering.integer.calibration import message_squares
from hardware.lowering.integer.network import IntegerNetwork, run_torch, run_torch_batches
from hardware.lowering.integer.trainable import GridNetwork

__all__ = ["GridNetwork", "IntegerNetwork", "message_squares", "run_torch", "run_torch_batches"]
