"""Is the model built of the modules that the rules were written for?"""

from __future__ import annotations

import torch

from hardware.errors import LoweringError
from spikingmoe.layers.norse_neuron import LIF_MODULES
from spikingmoe.model import SpikingTransformer


def check_structure(model: SpikingTransformer) -> None:
    """LoweringError for the first module that is not what the model's own configuration builds.

    The rules read weights, not `forward`: a subclass, a bias or a dilation that was put in later would
    be lowered as if it were not there. Decay and threshold of single neurons may differ.
    """
    with torch.random.fork_rng(devices=[]):  # building draws random numbers; nobody else notices
        built = SpikingTransformer(model.config)
    expected = dict(built.named_modules(remove_duplicate=False))
    found = dict(model.named_modules(remove_duplicate=False))
    for name, module in found.items():
        own = expected.get(name)
        if own is None:
            raise LoweringError(name, f"{type(module).__name__} was added; no rule knows it")
        if isinstance(own, LIF_MODULES) and not isinstance(module, LIF_MODULES):
            continue  # refused where the neuron is lowered
        same = type(module) is type(own)
        if not same or (
            not isinstance(own, LIF_MODULES) and module.extra_repr() != own.extra_repr()
        ):
            raise LoweringError(
                name,
                f"no rule for {type(module).__name__}({module.extra_repr()}) in the place of "
                f"{type(own).__name__}({own.extra_repr()})",
            )
    missing = next((name for name in expected if name not in found), None)
    if missing is not None:
        raise LoweringError(missing, f"the model lacks this {type(expected[missing]).__name__}")
