"""Rewrites of a `SpikeGraph`: one per file, each a function graph -> graph."""

from hardware.passes.balance_delays import balance_delays
from hardware.passes.drop_dead import drop_dead
from hardware.passes.quantise import quantise
from hardware.passes.register_delays import register_delays

__all__ = ["balance_delays", "drop_dead", "quantise", "register_delays"]
