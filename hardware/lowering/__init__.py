"""From torch to the intermediate representation: the only folder that knows both."""

from hardware.lowering.agreement import Agreement, compare_with_torch
from hardware.lowering.from_torch import lower
from hardware.lowering.record import record_torch

__all__ = ["Agreement", "compare_with_torch", "lower", "record_torch"]
