"""The command line. With `spikingmoe.train.checkpoint`, the only part that knows `hardware`."""
