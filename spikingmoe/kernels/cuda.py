"""The Triton kernels, called with tensors: the twins of `spikingmoe.kernels.cpu`, same arguments.

All tensors are contiguous. Affine maps (`scale`, `shift`) and means are float32, sums float64. Nothing
here waits for the device. The kernels have been run in Triton's interpreter only; for GPUs (compute
capabilities 8.0 and 9.0) they have been compiled, and not run yet.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spikingmoe.kernels import triton_neurons, triton_norm
from spikingmoe.kernels.build import KernelWarning
from spikingmoe.kernels.constants import NeuronConstants, Sequences, check_steps

FORMATS = (torch.float32, torch.bfloat16, torch.float16)
ELEMENTS = 1024  # neurons of a program: eight for each thread of four warps


@functools.cache
def available() -> bool:
    """Whether Triton compiles and runs a first small kernel; said once where it does not."""
    try:
        _try_out()
    except Exception as error:  # of Triton's compiler, of a C compiler, of a driver: of any class
        reason = " ".join(str(error).split())[:300]
        warnings.warn(
            f"no fused GPU kernels (Triton: {reason}); neurons run in their plain form, which is "
            f"several times slower. Triton needs a C compiler (or set CC)",
            KernelWarning,
            stacklevel=2,
        )
        return False
    return True


def _try_out() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"  # Triton's interpreter
    neurons = NeuronConstants(
        membrane_decay=0.5, threshold=1.0, surrogate="atan", detach_reset=False
    )
    x = torch.tensor([[[0.75, 1.5]]], device=device)
    spikes = lif_forward(x, 2, None, neurons, torch.float32).flatten().tolist()
    if spikes != [0.0, 1.0, 1.0, 1.0]:
        raise RuntimeError(f"the first kernel gives {spikes} for [0, 1, 1, 1]")


def lif_forward(
    x: Tensor,
    steps: int,
    affine: tuple[Tensor, Tensor] | None,
    neurons: NeuronConstants,
    dtype: torch.dtype,
) -> Tensor:
    """As `cpu.lif_forward`."""
    check_steps(x, steps)
    spikes = x.new_empty(steps, *x.shape[1:], dtype=dtype)
    rows, channels = _neurons(x, affine)
    scale, shift = affine or (x, x)
    _launch_tiles(
        triton_neurons.lif_forward,
        (rows, channels),
        (x, scale, shift, spikes, rows, channels, rows * channels, *_floats(neurons)),
        STEPS=steps,
        STILL=len(x) != steps,
        AFFINE=affine is not None,
    )
    return spikes


def lif_backward(
    x: Tensor,
    grad_spikes: Tensor,
    affine: tuple[Tensor, Tensor, Tensor] | None,
    neurons: NeuronConstants,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """As `cpu.lif_backward`."""
    check_steps(x, len(grad_spikes))
    grad_current = torch.empty_like(x)
    steps = len(grad_spikes)
    rows, channels = _neurons(x, affine)
    scale, shift, mean = affine or (x, x, x)
    block_r, _ = _blocks(rows, channels)
    sums = x.new_empty(_cdiv(rows, block_r), 2, channels if affine else 0, dtype=torch.float32)
    _launch_tiles(
        triton_neurons.lif_backward,
        (rows, channels),
        (
            *(x, scale, shift, mean, grad_spikes, grad_current, sums),
            *(rows, channels, rows * channels, *_floats(neurons)),
        ),
        STEPS=steps,
        STILL=len(x) != steps,
        AFFINE=affine is not None,
        **_gradient(neurons),
    )
    if affine is None:
        return grad_current, None, None
    first, second = sums.sum(0, dtype=torch.float64)
    return grad_current, first, second


def sequences_forward(
    x: Tensor, affine: tuple[Tensor, Tensor], sequences: Sequences, neurons: NeuronConstants
) -> Tensor:
    """As `cpu.sequences_forward`."""
    spikes = torch.empty_like(x)
    blocks, grid, sizes = _sequence_blocks(x, sequences)
    _launch(
        triton_neurons.sequences_forward,
        grid,
        (
            *(x, *affine, sequences.first, sequences.starts, sequences.gaps, spikes),
            *(x.shape[1], blocks, *_floats(neurons)),
        ),
        STEPS=sequences.longest,
        **sizes,
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
    """As `cpu.sequences_backward`."""
    rows, channels = x.shape
    grad_current = torch.empty_like(x)
    blocks, grid, sizes = _sequence_blocks(x, sequences)
    experts = len(sequences.per_expert)
    sums = x.new_empty(experts, blocks, 2, channels, dtype=torch.float32)
    across = _cdiv(channels, sizes["BLOCK_C"])
    grad_gate = x.new_empty(across, rows if gated else 0, dtype=torch.float32)
    _launch(
        triton_neurons.sequences_backward,
        grid,
        (
            *(x, *affine, sequences.first, sequences.starts, sequences.gaps),
            *(grad_spikes, grad_current, sums, grad_gate),
            *(rows, channels, blocks, *_floats(neurons)),
        ),
        STEPS=sequences.longest,
        GATED=gated,
        **_gradient(neurons),
        **sizes,
    )
    sum_grad, sum_grad_x = sums.sum(1, dtype=torch.float64).unbind(1)
    return grad_current, sum_grad, sum_grad_x, grad_gate.sum(0) if gated else None


def norm_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """As `cpu.norm_statistics`."""
    var, mean = torch.var_mean(x.reshape(-1, x.shape[-1]).float(), dim=0, correction=0)
    return mean.double(), var.double()


def norm_apply(x: Tensor, scale: Tensor, shift: Tensor, out: Tensor) -> None:
    """As `cpu.norm_apply`."""
    shape = _rows(x)
    _launch_tiles(triton_norm.norm_apply, shape, (x, scale, shift, out, *shape))


def norm_gradient_sums(g: Tensor, x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """As `cpu.norm_gradient_sums`."""
    rows, channels = _rows(x)
    block_r, _ = _blocks(rows, channels)
    sums = x.new_empty(_cdiv(rows, block_r), 2, channels, dtype=torch.float32)
    arguments = (g, x, mean, sums, rows, channels)
    _launch_tiles(triton_norm.norm_gradient_sums, (rows, channels), arguments)
    first, second = sums.sum(0, dtype=torch.float64)
    return first, second


def norm_combine(g: Tensor, x: Tensor, factors: Sequence[Tensor], out: Tensor) -> None:
    """As `cpu.norm_combine`."""
    shape = _rows(x)
    _launch_tiles(triton_norm.norm_combine, shape, (g, x, *factors, out, *shape))


def row_products(a: Tensor, b: Tensor) -> Tensor:
    """As `cpu.row_products`."""
    return (a.float() * b.float()).sum(1)


def _launch_tiles(
    kernel: Any, shape: tuple[int, int], arguments: Sequence[Any], **constants: Any
) -> None:
    """A program for each tile of (rows, channels)."""
    block_r, block_c = _blocks(*shape)
    grid = _cdiv(shape[0], block_r) * _cdiv(shape[1], block_c)
    _launch(kernel, grid, arguments, BLOCK_R=block_r, BLOCK_C=block_c, **constants)


def _launch(kernel: Any, grid: int, arguments: Sequence[Any], **constants: Any) -> None:
    assert all(a.is_contiguous() for a in arguments if isinstance(a, Tensor))
    with torch.cuda.device_of(arguments[0]):  # Triton launches on the current one
        kernel[(grid,)](*arguments, **constants, num_warps=4, enable_fp_fusion=False)


def _neurons(x: Tensor, affine: object) -> tuple[int, int]:
    """(rows, channels); without a map per channel the neurons of a step are one long row."""
    return (1, x[0].numel()) if affine is None else (x.shape[1], x.shape[2])


def _rows(x: Tensor) -> tuple[int, int]:
    return x.numel() // x.shape[-1], x.shape[-1]


def _blocks(rows: int, channels: int) -> tuple[int, int]:
    """Rows and channels of a tile, powers of two."""
    block_c = min(_power_of_two(channels), ELEMENTS if rows == 1 else 64)
    return min(_power_of_two(rows), ELEMENTS // block_c), block_c


def _sequence_blocks(x: Tensor, sequences: Sequences) -> tuple[int, int, dict[str, int]]:
    """Blocks of sequences of the expert that has most, programs of all, and the size of a block."""
    block_c = min(_power_of_two(x.shape[1]), 64)
    block_q = ELEMENTS // block_c
    blocks = max(1, _cdiv(max(sequences.per_expert), block_q))
    grid = len(sequences.per_expert) * blocks * _cdiv(x.shape[1], block_c)
    return blocks, grid, {"BLOCK_Q": block_q, "BLOCK_C": block_c}


def _floats(neurons: NeuronConstants) -> tuple[float, float]:
    return neurons.membrane_decay, neurons.threshold


def _gradient(neurons: NeuronConstants) -> dict[str, Any]:
    return {"SURROGATE": neurons.surrogate, "DETACH_RESET": neurons.detach_reset}


def _cdiv(a: int, b: int) -> int:
    return -(-a // b)


def _power_of_two(n: int) -> int:
    """The smallest one that is not below n."""
    return 1 << (n - 1).bit_length()
