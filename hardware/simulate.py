"""One entry to all backends: `simulate(graph, images, backend=..., arithmetic=...)`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from hardware.errors import BackendError
from hardware.ir.graph import Arithmetic, SpikeGraph
from hardware.ir.reference import BATCH, Progress, run_batches, run_reference
from hardware.ir.stream import run_stream
from hardware.passes.pipeline import prepare
from hardware.trace import SpikeTrace

#: "lava" runs a few fused Lava processes, "lava-stock" one stock process per population and synapse;
#: "stream" is a slow oracle for debugging; "loihi" needs a board; "sanafe" is a chip simulator by others.
BACKENDS = ("reference", "lava", "lava-stock", "stream", "loihi", "sanafe")


def simulate(
    graph: SpikeGraph,
    images: Any,
    *,
    backend: str = "reference",
    arithmetic: Arithmetic | None = None,
    record: Iterable[str] | None = None,
    progress: Progress | None = None,
    time_limit: float | None = None,
) -> SpikeTrace:
    """What a graph sends when it is shown images.

    Args:
        graph: float or fixed; delays are balanced if they are not yet.
        images: (S, C, H, W), or event frames (S, T, C, H, W); arrays, lists or CPU tensors.
        backend: one of `BACKENDS`.
        arithmetic: "float" or "fixed"; the graph's own by default. "fixed" quantises a float graph.
        record: names of populations to keep in the trace; all by default.
        progress: called with (samples done, samples).
        time_limit: seconds, for the Lava backends, the board and SANA-FE.

    Raises:
        BackendError: unknown backend or population, images of the wrong shape, a failed run.
        GraphError: unknown arithmetic, or a graph that cannot be quantised.
    """
    if not isinstance(graph, SpikeGraph):
        raise BackendError(
            f"simulate needs a SpikeGraph, got a {type(graph).__name__}; lower it first"
        )
    if time_limit is not None and not time_limit > 0:
        raise BackendError(f"time_limit={time_limit} must be a positive number of seconds")
    if isinstance(record, str):
        record = [record]
    if backend not in BACKENDS:
        raise BackendError(f"backend {backend!r} is unknown; use one of {', '.join(BACKENDS)}")
    graph = prepare(graph, arithmetic)
    keep = None if record is None else list(dict.fromkeys(record))
    unknown = [name for name in keep or [] if name not in graph.populations]
    if unknown:
        raise BackendError(
            f"record={unknown[0]!r}: the graph has no such population; it has "
            f"{', '.join(list(graph.populations)[:8])}, ..."
        )
    inputs = to_inputs(graph, images)
    if backend == "reference":
        return run_reference(graph, inputs, record=keep, progress=progress)
    if backend == "stream":
        trace = run_stream(graph, inputs)
        kept = {n: v for n, v in trace.spikes.items() if keep is None or n in keep}
        return SpikeTrace(spikes=kept, logits=trace.logits, meta=trace.meta)
    if backend == "loihi":
        from hardware.lava.loihi import run_loihi

        return run_loihi(graph, inputs, record=keep, progress=progress, time_limit=time_limit)
    if backend == "sanafe":
        from hardware.sanafe.run import Limits, run_sanafe

        limits = Limits(seconds=time_limit)
        return run_sanafe(graph, inputs, record=keep, progress=progress, limits=limits)
    from hardware.lava.run import run_lava
    from hardware.lava.settings import Settings

    return run_lava(
        graph,
        inputs,
        record=keep,
        progress=progress,
        time_limit=time_limit,
        settings=Settings(network="fused" if backend == "lava" else "stock"),
    )


def simulate_batches(
    graph: SpikeGraph, images: Any, *, size: int = BATCH, arithmetic: Arithmetic | None = None
) -> Iterator[SpikeTrace]:
    """The reference's traces of `size` samples after another, all populations: `simulate` for many images.

    Args:
        images: as for `simulate`; sliced along S, so that no more than a batch is ever copied.

    Raises:
        BackendError, GraphError: as `simulate`.
    """
    graph = prepare(graph, arithmetic)
    starts = range(0, len(images), size)
    return run_batches(graph, (to_inputs(graph, images[at : at + size]) for at in starts))


def to_inputs(graph: SpikeGraph, images: Any) -> np.ndarray:
    """Images (S, C, H, W) or frames (S, T, C, H, W) as (S, 1 or T, H, W, C); others as (S, [T,] *shape).

    Raises:
        BackendError: with the shape that was given and the one that is needed.
    """
    try:
        detached = images.detach() if hasattr(images, "detach") else images
        images = np.asarray(detached, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BackendError(f"images are no array of numbers ({error})") from None
    shape, steps = graph.data_input.shape, graph.time_steps
    is_map = len(shape) == 3
    axes = (shape[2], *shape[:2]) if is_map else shape
    sized = images.shape[-len(axes) :] == axes and images.ndim - len(axes) in (1, 2) and len(images)
    if not sized or (images.ndim == len(axes) + 2 and images.shape[1] not in (1, steps)):
        raise BackendError(
            f"images have shape {images.shape}; '{graph.data_input.name}' needs (samples, "
            f"{', '.join(map(str, axes))}) or (samples, {steps}, {', '.join(map(str, axes))})"
        )
    if images.ndim == len(axes) + 1:
        images = images[:, None]
    return np.moveaxis(images, 2, -1) if is_map else images
