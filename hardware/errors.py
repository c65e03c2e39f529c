"""What the package refuses: every refusal is a `HardwareError` whose text is one line."""

from __future__ import annotations


class HardwareError(ValueError):
    """Base class: where, what was got, what is allowed, how to mend it, in one line."""


class GraphError(HardwareError):
    """A `SpikeGraph` that means nothing: a missing population, a wrong shape, a forbidden cycle."""


class FileError(HardwareError):
    """A file that is missing, cut short, altered or of another version."""


class BackendError(HardwareError):
    """A backend that is not installed, was given what it cannot run, or died while running."""


class MappingError(HardwareError):
    """A graph that cannot be laid out on a chip, or a chip that is not known."""


class NirError(HardwareError):
    """A NIR graph that our graphs cannot express, or one of ours that NIR cannot."""


class LoweringError(HardwareError):
    """A module that cannot become static synapses and LIF populations.

    Args:
        module: the module's dotted name in the model.
        reason: why it cannot be lowered, and what can.
    """

    def __init__(self, module: str, reason: str) -> None:
        super().__init__(f"cannot lower '{module}': {reason}")
        self.module = module
        self.reason = reason
