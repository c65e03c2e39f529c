"""Rewrites of a `SpikeGraph`: one per file, each a function graph -> graph."""

from hardware.passes.balance_delays import balance_delays
from hardware.passes.drop_dead import drop_dead
from hardware.passes.quantise import quantise
from hardware.passes.register_delays import register_delays
from hardware.passes.scores_to_rows import scores_to_rows

__all__ = ["balance_delays", "drop_dead", "quantise", "register_delays", "scores_to_rows"]
