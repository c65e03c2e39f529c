"""One row of `lowering.py`: a network lowered, timed, weighed and compared with everything that runs it."""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from lowering_backends import Pair, compare_backends, share_right
from lowering_cases import Case, make_model

from hardware.files import write_json
from hardware.ir import LIF, SpikeGraph
from hardware.ir.fan_out import count_synapses
from hardware.ir.nodes import size
from hardware.lowering import compare_with_torch, lower
from hardware.passes.quantise import quantise
from hardware.simulate import simulate_batches
from hardware.trace import SpikeTrace


def measure(case: Case, name: str, args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    count = args.trained_images if case.trained else args.images
    model, split, words = make_model(case, count, args.data_dir, args.seed)
    row: dict = {"network": name, "n": len(split), "images": words, "trained": bool(case.trained)}
    row |= {"parameters": sum(p.numel() for p in model.parameters()), "residual": case.residual}
    row["before_mib"] = peak_mib()
    with timed(row, "lower_s"):
        graph = lower(model, residual=case.residual)  # type: ignore[arg-type]
    with timed(row, "quantise_s"):
        fixed = quantise(graph)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "program")
        with timed(row, "save_s"):
            fixed.save(path)
        row["program_mib"] = round(os.path.getsize(path) / 2**20, 1)
        with timed(row, "load_s"):
            loaded = SpikeGraph.load(path)
    row["lowering_peak_mib"] = peak_mib()
    assert loaded.fingerprint == fixed.fingerprint
    row |= {
        "populations": len(graph.populations),
        "neurons": sum(size(p) for p in graph.populations.values()),
        "synapse_groups": len(graph.synapses),
        "synapses": count_synapses(graph),
        "depth": graph.depth[graph.readout.name],
    }
    rates = Rates(graph)
    batch = 64 if row["neurons"] * graph.time_steps < 2e6 else 8
    with timed(row, "compare_s"):
        agreement = compare_with_torch(
            model,
            graph,
            split.images,
            residual=case.residual,  # type: ignore[arg-type]
            batch=batch,
            watch=rates.add,
        )
    with timed(row, "reference_fixed_s"):
        traces = simulate_batches(fixed, split.images, size=batch)
        fixed_logits = np.concatenate([trace.logits for trace in traces])
    comparison, rounding = agreement.comparison, agreement.rounding
    labels = split.labels.numpy()
    known = labels if case.trained else None
    counts = {"torch-integers": args.integers, "lava": args.lava, "lava-stock": args.stock}
    row["backends"] = [
        pair
        for program in (graph, fixed)
        for pair in compare_backends(
            program,
            split.images,
            known,
            pairs_of(program, counts, len(split)),
            batch=min(batch, 32),
        )
    ]
    row |= {
        "compared": comparison.compared,
        "differing": comparison.differing,
        "predictions_differ": comparison.predictions_differ,
        "same": comparison.same,
        "first_divergence": str(comparison.first) if comparison.first else None,
        "float32_diverged": rounding.images_diverged,
        "float32_margin": rounding.largest_margin,
        **rates.row(),
        "accuracy": share_right(agreement.torch_logits, labels) if case.trained else None,
        "accuracy_fixed": share_right(fixed_logits, labels) if case.trained else None,
        "fixed_predictions_differ": int(
            (fixed_logits.argmax(1) != agreement.torch_logits.argmax(1)).sum()
        ),
        "peak_mib": peak_mib(),
    }
    write_json(args.row, row)


def pairs_of(program: SpikeGraph, counts: dict[str, int], images: int) -> list[Pair]:
    """The backends that run a program, each with as many images as were asked for and are there."""
    return [
        Pair(backend, min(count, images))
        for backend, count in counts.items()
        if count and (program.arithmetic == "fixed" or backend != "torch-integers")
    ]


@contextmanager
def timed(row: dict, name: str) -> Iterator[None]:
    """Wall seconds under `name`, and this process's processor time, which a busy machine changes less."""
    started, worked = time.perf_counter(), time.process_time()
    yield
    row[name] = round(time.perf_counter() - started, 3)
    row[name.removesuffix("_s") + "_cpu_s"] = round(time.process_time() - worked, 3)


def peak_mib() -> float:
    """Largest resident set of this process so far."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


class Rates:
    """Spikes per neuron and step of every population, added up over batches."""

    def __init__(self, graph: SpikeGraph) -> None:
        self.spikes = {p.name: 0 for p in graph.of_kind(LIF)}
        self.slots = dict.fromkeys(self.spikes, 0)

    def add(self, trace: SpikeTrace) -> None:
        for name in self.spikes:
            self.spikes[name] += int(np.count_nonzero(trace.spikes[name]))
            self.slots[name] += trace.spikes[name].size

    def row(self) -> dict[str, object]:
        rates = {name: self.spikes[name] / self.slots[name] for name in self.spikes}
        return {
            "firing_rate": sum(self.spikes.values()) / sum(self.slots.values()),
            "lowest_rate": min(rates.values()),
            "highest_rate": max(rates.values()),
            "silent_populations": [name for name, rate in rates.items() if rate == 0],
        }
