"""LIF neurons in Triton: what lif.cpp and sequences.cpp compute, one program for a tile of neurons.

All arithmetic is float32, and products are not contracted with sums (`enable_fp_fusion=False` where
they are launched): spikes are those of torch's own operations. The steps of a window are unrolled; the
backward pass computes membranes again and holds them in registers. Sums go to one place per program
and are added up afterwards, in a fixed order.
"""

# Triton compiles what follows in a language of its own, whose types are not Python's:
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportIndexIssue=false, reportMissingImports=false

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def derivative(u, SURROGATE: tl.constexpr):
    """d spike / d u at `u` above the threshold, as in common.h."""
    if SURROGATE == "atan":
        a = 3.14159265358979 * u
        d = 1.0 / (1.0 + a * a)
    elif SURROGATE == "fast_sigmoid":
        a = 25.0 * tl.abs(u) + 1.0
        d = 1.0 / (a * a)
    else:
        s = 1.0 / (1.0 + tl.exp(-25.0 * u))
        d = 25.0 * s * (1.0 - s)
    return d


@triton.jit
def grad_membrane(
    u, grad_spike, grad_v, threshold, SURROGATE: tl.constexpr, DETACH_RESET: tl.constexpr
):
    """dL/du[t] from dL/ds[t] and dL/dv[t], with v = u (1 - s)."""
    d = derivative(u - threshold, SURROGATE)
    kept = tl.where(u > threshold, 0.0, 1.0)
    if not DETACH_RESET:
        kept = kept - u * d
    return grad_spike * d + grad_v * kept


@triton.jit
def tile(rows, channels, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):
    """Of this program: places (BLOCK_R, BLOCK_C), which exist, their channels, index of its rows."""
    across = tl.cdiv(channels, BLOCK_C)
    program = tl.program_id(0).to(tl.int64)
    block = program // across
    row = block * BLOCK_R + tl.arange(0, BLOCK_R)
    channel = (program % across) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = (row < rows)[:, None] & (channel < channels)[None, :]
    return row[:, None] * channels + channel[None, :], inside, channel, block


@triton.jit
def load_current(x, at, inside, a, b, AFFINE: tl.constexpr):
    """scale x + shift, or x itself; no more than 0 or the shift outside."""
    current = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    if AFFINE:
        current = current * a[None, :] + b[None, :]
    return current


@triton.jit
def load_affine(scale, shift, channel, channels, AFFINE: tl.constexpr):
    if AFFINE:
        a = tl.load(scale + channel, mask=channel < channels, other=0.0)
        b = tl.load(shift + channel, mask=channel < channels, other=0.0)
    else:
        a = 0.0
        b = 0.0
    return a, b


@triton.jit
def lif_forward(
    x,
    scale,
    shift,
    spikes,
    rows,
    channels,
    step,
    decay,
    threshold,
    STEPS: tl.constexpr,
    STILL: tl.constexpr,
    AFFINE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """spikes (STEPS, rows, channels) of x, which is (1, rows, channels) if STILL."""
    at, inside, channel, _ = tile(rows, channels, BLOCK_R, BLOCK_C)
    a, b = load_affine(scale, shift, channel, channels, AFFINE)
    current = load_current(x, at, inside, a, b, AFFINE)
    v = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    for k in tl.static_range(STEPS):
        if k > 0 and not STILL:
            current = load_current(x, at, inside, a, b, AFFINE)
        u = decay * v + current
        fires = u > threshold
        tl.store(spikes + at, tl.where(fires, 1.0, 0.0).to(spikes.dtype.element_ty), mask=inside)
        v = tl.where(fires, 0.0, u)
        at += step


@triton.jit
def lif_backward(
    x,
    scale,
    shift,
    mean,
    grad_spikes,
    grad_current,
    sums,
    rows,
    channels,
    step,
    decay,
    threshold,
    STEPS: tl.constexpr,
    STILL: tl.constexpr,
    AFFINE: tl.constexpr,
    SURROGATE: tl.constexpr,
    DETACH_RESET: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """grad_current like x; if AFFINE also sums (blocks, 2, channels) of it and of it (x - mean)."""
    at, inside, channel, block = tile(rows, channels, BLOCK_R, BLOCK_C)
    a, b = load_affine(scale, shift, channel, channels, AFFINE)
    current = load_current(x, at, inside, a, b, AFFINE)
    u = current
    membranes = (u,)
    for _ in tl.static_range(1, STEPS):
        at += step
        if not STILL:
            current = load_current(x, at, inside, a, b, AFFINE)
        u = decay * tl.where(u > threshold, 0.0, u) + current
        membranes = membranes + (u,)  # noqa: RUF005
    grad_v = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    grad_x = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    total = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    total_x = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    for k in tl.static_range(STEPS - 1, -1, -1):
        grad_spike = tl.load(grad_spikes + at, mask=inside, other=0.0).to(tl.float32)
        grad_u = grad_membrane(membranes[k], grad_spike, grad_v, threshold, SURROGATE, DETACH_RESET)
        grad_v = decay * grad_u
        if STILL:
            grad_x += grad_u
        else:
            grad_x = grad_u
        if k == 0 or not STILL:
            out = grad_x.to(grad_current.dtype.element_ty)
            tl.store(grad_current + at, out, mask=inside)
            if AFFINE:
                m = tl.load(mean + channel, mask=channel < channels, other=0.0)
                total += grad_x
                total_x += grad_x * (load_current(x, at, inside, a, b, False) - m[None, :])
        at -= step
    if AFFINE:
        place = sums + 2 * block * channels + channel
        tl.store(place, tl.sum(total, axis=0), mask=channel < channels)
        tl.store(place + channels, tl.sum(total_x, axis=0), mask=channel < channels)


@triton.jit
def sequence_tile(
    first_sequence, starts, channels, blocks, BLOCK_Q: tl.constexpr, BLOCK_C: tl.constexpr
):
    """Of this program: its first and last rows (BLOCK_Q,), channels, expert, and (expert, block)."""
    across = tl.cdiv(channels, BLOCK_C)
    program = tl.program_id(0).to(tl.int64)
    chunk = program // across
    channel = (program % across) * BLOCK_C + tl.arange(0, BLOCK_C)
    expert = chunk // blocks
    q = tl.load(first_sequence + expert) + (chunk % blocks) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    exists = q < tl.load(first_sequence + expert + 1)
    row = tl.load(starts + q, mask=exists, other=0)
    end = tl.load(starts + q + 1, mask=exists, other=0)
    return row, end, channel, expert, chunk


@triton.jit
def sequences_forward(
    x,
    scale,
    shift,
    first_sequence,
    starts,
    gaps,
    spikes,
    channels,
    blocks,
    decay,
    threshold,
    STEPS: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Spikes (rows, channels). A program runs its sequences side by side, STEPS from each start."""
    row, end, channel, expert, _ = sequence_tile(
        first_sequence, starts, channels, blocks, BLOCK_Q, BLOCK_C
    )
    own = expert * channels
    a, b = load_affine(scale + own, shift + own, channel, channels, True)
    v = tl.zeros((BLOCK_Q, BLOCK_C), tl.float32)
    due = tl.zeros((BLOCK_Q,), tl.int32)  # step of the next row
    for k in tl.static_range(STEPS):
        here = (row < end) & (due == k)
        inside = here[:, None] & (channel < channels)[None, :]
        at = row[:, None] * channels + channel[None, :]
        current = tl.where(inside, load_current(x, at, inside, a, b, True), 0.0)
        u = decay * v + current
        fires = u > threshold
        tl.store(spikes + at, tl.where(fires, 1.0, 0.0).to(spikes.dtype.element_ty), mask=inside)
        v = tl.where(fires, 0.0, u)
        row += here.to(tl.int64)
        gap = tl.load(gaps + row, mask=here & (row < end), other=0).to(tl.int32)
        due = tl.where(here, k + gap, due)


@triton.jit
def sequences_backward(
    x,
    scale,
    shift,
    mean,
    first_sequence,
    starts,
    gaps,
    grad_spikes,
    grad_current,
    sums,
    grad_gate,
    rows,
    channels,
    blocks,
    decay,
    threshold,
    STEPS: tl.constexpr,
    SURROGATE: tl.constexpr,
    DETACH_RESET: tl.constexpr,
    GATED: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """grad_current like x; sums (experts, blocks, 2, channels) of it and of it (x - mean); if GATED
    grad_gate (channel blocks, rows): of each row the sum of it * current."""
    row, end, channel, expert, chunk = sequence_tile(
        first_sequence, starts, channels, blocks, BLOCK_Q, BLOCK_C
    )
    own = expert * channels
    a, b = load_affine(scale + own, shift + own, channel, channels, True)
    m = tl.load(mean + own + channel, mask=channel < channels, other=0.0)
    u = tl.zeros((BLOCK_Q, BLOCK_C), tl.float32)
    due = tl.zeros((BLOCK_Q,), tl.int32)
    membranes, places, present = (), (), ()
    for k in tl.static_range(STEPS):
        here = (row < end) & (due == k)
        inside = here[:, None] & (channel < channels)[None, :]
        at = row[:, None] * channels + channel[None, :]
        current = tl.where(inside, load_current(x, at, inside, a, b, True), 0.0)
        u = decay * tl.where(u > threshold, 0.0, u) + current
        membranes = membranes + (u,)  # noqa: RUF005  (what Triton compiles)
        places = places + (row,)  # noqa: RUF005
        present = present + (here,)  # noqa: RUF005
        row += here.to(tl.int64)
        gap = tl.load(gaps + row, mask=here & (row < end), other=0).to(tl.int32)
        due = tl.where(here, k + gap, due)
    grad_v = tl.zeros((BLOCK_Q, BLOCK_C), tl.float32)
    total = tl.zeros((BLOCK_Q, BLOCK_C), tl.float32)
    total_x = tl.zeros((BLOCK_Q, BLOCK_C), tl.float32)
    for k in tl.static_range(STEPS - 1, -1, -1):
        here = present[k]
        inside = here[:, None] & (channel < channels)[None, :]
        at = places[k][:, None] * channels + channel[None, :]
        grad_spike = tl.load(grad_spikes + at, mask=inside, other=0.0).to(tl.float32)
        grad_u = grad_membrane(membranes[k], grad_spike, grad_v, threshold, SURROGATE, DETACH_RESET)
        grad_v = decay * grad_u
        grad_x = tl.where(inside, grad_u, 0.0)  # a step without a row has no current
        tl.store(grad_current + at, grad_x.to(grad_current.dtype.element_ty), mask=inside)
        value = load_current(x, at, inside, a, b, False)
        total += grad_x
        total_x += grad_x * (value - m[None, :])
        if GATED:
            product = grad_x * (value * a[None, :] + b[None, :])
            across = tl.program_id(0).to(tl.int64) % tl.cdiv(channels, BLOCK_C)
            tl.store(grad_gate + across * rows + places[k], tl.sum(product, axis=1), mask=here)
    place = sums + 2 * chunk * channels + channel
    tl.store(place, tl.sum(total, axis=0), mask=channel < channels)
    tl.store(place + channels, tl.sum(total_x, axis=0), mask=channel < channels)
