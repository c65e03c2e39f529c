"""The spikes of the torch model, under the names of the lowered populations."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from hardware.errors import LoweringError
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import Relay
from hardware.lowering.builder import Rules, Tap
from hardware.lowering.from_torch import Residual, lower_with_taps
from hardware.lowering.structure import Model
from hardware.trace import SpikeTrace
from spikingmoe.layers.expert import Experts

BATCH = 256


def record_torch(
    model: Model,
    images: Tensor,
    *,
    dtype: torch.dtype = torch.float64,
    residual: Residual = "relay",
    rules: Rules | None = None,
) -> SpikeTrace:
    """Run the model and record every population that torch computes explicitly.

    Args:
        images: (S, C, height, width), normalised, or event frames (S, T, C, height, width): samples
            first, as for `simulate` (the model itself takes frames with T first).
        dtype: float64 is the arithmetic that the contract is about; float32 is what was trained.
        residual, rules: as for `lower`.

    Returns:
        A trace without the relays of the stream and the readout's currents, which torch only sums.
    """
    started = time.perf_counter()
    batches = images.split(BATCH)
    parts = list(record_batches(model, batches, dtype=dtype, residual=residual, rules=rules))
    return SpikeTrace(
        spikes={n: np.concatenate([p.spikes[n] for p in parts]) for n in parts[0].spikes},
        logits=np.concatenate([p.logits for p in parts]),
        meta={
            **parts[0].meta,
            "samples": len(images),
            "seconds": time.perf_counter() - started,
        },
    )


def record_batches(
    model: Model,
    batches: Iterable[Tensor],
    *,
    dtype: torch.dtype = torch.float64,
    residual: Residual = "relay",
    rules: Rules | None = None,
) -> Iterator[SpikeTrace]:
    """`record_torch` of one batch of images after another, in the memory of one."""
    graph, taps = lower_with_taps(model, residual=residual, rules=rules)
    model = copy.deepcopy(model).to(dtype).eval()
    for module in model.modules():
        if isinstance(module, Experts):
            module.dispatch = "masked"  # the grouped form does not hold closed gates' neurons
    for images in batches:
        if images.ndim != 4 and not (images.ndim == 5 and images.shape[1] == graph.time_steps):
            raise LoweringError(
                "input",
                f"record_torch takes images (S, C, H, W) or frames (S, {graph.time_steps}, C, H, W), "
                f"got {tuple(images.shape)}",
            )
        started = time.perf_counter()
        spikes, logits = _record_batch(model, images.to(dtype), graph, taps)
        meta: dict[str, object] = {
            "backend": f"torch-{str(dtype).removeprefix('torch.')}",
            "arithmetic": "float",
            "samples": len(images),
            "time_steps": graph.time_steps,
            "fingerprint": graph.fingerprint,
            "seconds": time.perf_counter() - started,
        }
        yield SpikeTrace(spikes=spikes, logits=logits, meta=meta)


@torch.no_grad()
def _record_batch(
    model: Model, images: Tensor, graph: SpikeGraph, taps: Mapping[str, Tap]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    seen: dict[str, tuple[tuple[Tensor, ...], Tensor]] = {}
    handles = []
    for path in {tap.module for tap in taps.values()}:

        def keep(
            _module: object, inputs: tuple[Tensor, ...], output: Tensor, path: str = path
        ) -> None:
            seen[path] = (inputs, output)

        handles.append(model.get_submodule(path).register_forward_hook(keep))
    try:
        frames = images.transpose(0, 1) if images.ndim == 5 else images  # T first
        logits = model(frames).logits
    finally:
        for handle in handles:
            handle.remove()
    spikes = {}
    for name, tap in taps.items():
        values = tap.view(*seen[tap.module]).transpose(0, 1).cpu().numpy()
        expected = (len(images), graph.time_steps, *graph.populations[name].shape)
        assert values.shape == expected, f"{name}: {values.shape} instead of {expected}"
        graded = isinstance(graph.populations[name], Relay)
        spikes[name] = values.astype(np.float64) if graded else values.astype(bool)
    return spikes, logits.double().cpu().numpy()
