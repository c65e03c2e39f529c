"""From torch to the intermediate representation: the only folder that knows both."""

from hardware.lowering.from_torch import lower
from hardware.lowering.record import record_torch

__all__ = ["lower", "record_torch"]
