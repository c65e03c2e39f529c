"""From torch to the intermediate representation: the only folder that knows both."""

from hardware.lowering.agreement import Agreement, compare_with_torch
from hardware.lowering.builder import Builder, Rule, Rules, Spikes, Stream
from hardware.lowering.fold import fold_conv, fold_linear
from hardware.lowering.from_torch import lower
from hardware.lowering.record import record_torch
from hardware.lowering.views import token_map

__all__ = [
    "Agreement",
    "Builder",
    "Rule",
    "Rules",
    "Spikes",
    "Stream",
    "compare_with_torch",
    "fold_conv",
    "fold_linear",
    "lower",
    "record_torch",
    "token_map",
]
