"""The compiled CPU kernels, called with tensors; what each computes stands in the C++ sources.

All tensors are contiguous. Affine maps (`scale`, `shift`) and means are float32, sums float64.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from spikingmoe.config.model import Surrogate
from spikingmoe.kernels.build import load_library
from spikingmoe.kernels.constants import NeuronConstants, Sequences, check_steps

FORMATS = {torch.float32: 0, torch.bfloat16: 1}
SURROGATES: dict[Surrogate, int] = {"atan": 0, "fast_sigmoid": 1, "sigmoid": 2}


def available() -> bool:
    """Whether the kernels could be compiled and loaded."""
    return load_library() is not None


def lif_forward(
    x: Tensor,
    steps: int,
    affine: tuple[Tensor, Tensor] | None,
    neurons: NeuronConstants,
    dtype: torch.dtype,
) -> Tensor:
    """Spikes (steps, rows, channels) in `dtype` of LIF neurons.

    Args:
        x: (x_steps, rows, channels), x_steps = steps or 1.
        affine: (scale, shift) (channels,), of which the current is scale_c x + shift_c; or None.
        dtype: that of x, or bfloat16.
    """
    check_steps(x, steps)
    spikes = x.new_empty(steps, *x.shape[1:], dtype=dtype)
    scale, shift = affine or (None, None)
    _call(
        "lif_forward",
        FORMATS[x.dtype],
        FORMATS[dtype],
        x,
        *_sizes(len(x), steps, *x.shape[1:]),
        scale,
        shift,
        *_floats(neurons),
        spikes,
    )
    return spikes


def lif_backward(
    x: Tensor,
    grad_spikes: Tensor,
    affine: tuple[Tensor, Tensor, Tensor] | None,
    neurons: NeuronConstants,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """(gradient of the current (x_steps, rows, channels), and with an affine map (scale, shift, mean)
    the sums of it and of it * (x - mean) over steps and rows, (channels,))."""
    check_steps(x, len(grad_spikes))
    grad_current = torch.empty_like(x)
    scale, shift, mean = affine or (None, None, None)
    sums = None if affine is None else x.new_empty(2, x.shape[-1], dtype=torch.float64)
    first, second = (None, None) if sums is None else sums
    _call(
        "lif_backward",
        FORMATS[x.dtype],
        FORMATS[grad_spikes.dtype],
        SURROGATES[neurons.surrogate],
        x,
        *_sizes(len(x), len(grad_spikes), *x.shape[1:]),
        scale,
        shift,
        mean,
        *_floats(neurons),
        int(neurons.detach_reset),
        grad_spikes,
        grad_current,
        first,
        second,
    )
    return grad_current, first, second


def sequences_forward(
    x: Tensor,
    affine: tuple[Tensor, Tensor],
    sequences: Sequences,
    neurons: NeuronConstants,
) -> Tensor:
    """Spikes (rows, channels) of experts' neurons, whose rows come in sequences.

    Args:
        affine: (scale, shift), (experts, channels) each.
    """
    spikes = torch.empty_like(x)
    _call(
        "sequences_forward",
        FORMATS[x.dtype],
        x,
        *_sizes(x.shape[1], len(affine[0])),
        *_tensors(sequences),
        *affine,
        *_floats(neurons),
        spikes,
    )
    return spikes


def sequences_backward(
    x: Tensor,
    grad_spikes: Tensor,
    affine: tuple[Tensor, Tensor, Tensor],
    sequences: Sequences,
    neurons: NeuronConstants,
    *,
    gated: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """(gradient of the currents (rows, channels), sums of it and of it * (x - mean) (experts, channels),
    and if `gated` the sum over each row of it * current (rows,))."""
    grad_current = torch.empty_like(x)
    sums = x.new_empty(2, *affine[0].shape, dtype=torch.float64)
    grad_gate = x.new_empty(len(x), dtype=torch.float32) if gated else None
    _call(
        "sequences_backward",
        FORMATS[x.dtype],
        SURROGATES[neurons.surrogate],
        x,
        *_sizes(x.shape[1], len(affine[0])),
        *_tensors(sequences),
        *affine,
        *_floats(neurons),
        int(neurons.detach_reset),
        grad_spikes,
        grad_current,
        sums[0],
        sums[1],
        grad_gate,
    )
    return grad_current, sums[0], sums[1], grad_gate


def norm_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """(mean, biased variance) of each channel over all other axes, (channels,)."""
    mean, square = x.new_empty(2, x.shape[-1], dtype=torch.float64)
    rows, channels = _rows(x)
    _call("norm_statistics", FORMATS[x.dtype], x, *_sizes(rows, channels), mean, square)
    return mean, square / rows


def norm_apply(x: Tensor, scale: Tensor, shift: Tensor, out: Tensor) -> None:
    """out = scale_c x + shift_c, float32."""
    _call("norm_apply", FORMATS[x.dtype], x, *_sizes(*_rows(x)), scale, shift, out)


def norm_gradient_sums(g: Tensor, x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of g and of g * (x - mean) over all but the channels; g is float32."""
    sums = x.new_empty(2, x.shape[-1], dtype=torch.float64)
    _call("norm_gradient_sums", FORMATS[x.dtype], g, x, *_sizes(*_rows(x)), mean, sums[0], sums[1])
    return sums[0], sums[1]


def norm_combine(g: Tensor, x: Tensor, factors: Sequence[Tensor], out: Tensor) -> None:
    """out = a_c g + b_c x + c_c for factors a, b, c; `out` has the dtype of x and may be g itself."""
    formats = (FORMATS[g.dtype], FORMATS[x.dtype])
    _call("norm_combine", *formats, g, x, *_sizes(*_rows(x)), *factors, out)


def row_products(a: Tensor, b: Tensor) -> Tensor:
    """Sum over each row of a * b, (rows, channels) -> (rows,) float32."""
    out = a.new_empty(len(a), dtype=torch.float32)
    _call("row_products", FORMATS[a.dtype], FORMATS[b.dtype], a, b, *_sizes(*_rows(a)), out)
    return out


def _call(name: str, *arguments: Tensor | ctypes.c_int64 | ctypes.c_float | int | None) -> None:
    library = load_library()
    assert library is not None, "ask available() first"
    function = getattr(library, f"spikingmoe_{name}")
    function(*map(_plain, arguments), torch.get_num_threads())


def _plain(argument: object) -> object:
    if argument is None:
        return ctypes.c_void_p(None)
    if isinstance(argument, Tensor):
        assert argument.is_contiguous()
        return ctypes.c_void_p(argument.data_ptr())
    return argument


def _tensors(sequences: Sequences) -> tuple[Tensor, Tensor, Tensor]:
    return sequences.first, sequences.starts, sequences.gaps


def _rows(x: Tensor) -> tuple[int, int]:
    return x.numel() // x.shape[-1], x.shape[-1]


def _sizes(*numbers: int) -> tuple[ctypes.c_int64, ...]:
    return tuple(ctypes.c_int64(n) for n in numbers)


def _floats(neurons: NeuronConstants) -> tuple[ctypes.c_float, ctypes.c_float]:
    return ctypes.c_float(neurons.membrane_decay), ctypes.c_float(neurons.threshold)
