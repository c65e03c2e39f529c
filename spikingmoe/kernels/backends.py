"""Which module holds the kernels of a device, and whether there are any for a tensor."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import warnings
from types import ModuleType

import torch
from torch import Tensor, nn

from spikingmoe.kernels.build import KernelWarning

BACKENDS = {"cpu": "spikingmoe.kernels.cpu", "cuda": "spikingmoe.kernels.cuda"}


def backend_of(x: Tensor) -> ModuleType:
    """The kernels for tensors on the device of x; ask `can_fuse` first."""
    return importlib.import_module(BACKENDS[x.device.type])


def can_fuse(x: Tensor) -> bool:
    """Whether there is a kernel for this tensor: its device, and its dtype (float32 or bfloat16; on a
    GPU also float16).

    Not while `torch.compile` looks on, which fuses the plain form itself, nor for tensors that
    have no memory of their own (fake ones).
    """
    if torch.compiler.is_compiling() or type(x) not in (Tensor, nn.Parameter) or not x.numel():
        return False
    device = x.device.type
    if device not in BACKENDS or (device == "cuda" and not _has_triton()):
        return False
    backend = backend_of(x)
    return x.dtype in backend.FORMATS and backend.available()


def spike_dtype(x: Tensor) -> torch.dtype:
    """Of the spikes of neurons whose current is x: what the matrices behind them are multiplied in."""
    if torch.is_autocast_enabled(x.device.type):
        wanted = torch.get_autocast_dtype(x.device.type)
        return wanted if wanted in backend_of(x).FORMATS else x.dtype
    return x.dtype


@functools.cache
def _has_triton() -> bool:
    """Whether the kernels of a GPU can be compiled; said once where not."""
    if importlib.util.find_spec("triton") is not None:
        return True
    warnings.warn(
        "no fused GPU kernels (triton is not installed); neurons run in their plain form, which is "
        "several times slower. pip install triton",
        KernelWarning,
        stacklevel=2,
    )
    return False
