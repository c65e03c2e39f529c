"""A made-up run for the report: the populations of a lowered model of one block, and what a demo records."""

from __future__ import annotations

import numpy as np

from spikingmoe.report import ReportFacts

SAMPLES, STEPS, SIDE, GRID, EXPERTS = 8, 3, 8, 2, 4


def make_facts(metrics=None, *, top_k=1, hold_step=None, dense=False, channels=1) -> ReportFacts:
    """A made-up run with the populations of a lowered model of one block."""
    rng = np.random.default_rng(0)

    def spikes(*shape):
        return rng.random((SAMPLES, STEPS, *shape)) < 0.4

    grid = (GRID, GRID)
    sent = {
        "input": rng.normal(size=(SAMPLES, STEPS, SIDE, SIDE, channels)),
        "stem.lif0": spikes(SIDE, SIDE, 4),
        "stream.0": rng.normal(size=(SAMPLES, STEPS, *grid, 4)),
        "blocks.0.attention.q": spikes(*grid, 4),
        "head.x": spikes(*grid, 4),
    }
    if dense:
        sent |= {"blocks.0.mlp.x": spikes(*grid, 4), "blocks.0.mlp.hidden": spikes(*grid, 8)}
    else:
        order = rng.random((SAMPLES, STEPS, *grid, EXPERTS)).argsort(axis=-1)
        gates = np.zeros(order.shape, dtype=bool)
        np.put_along_axis(gates, order[..., :top_k], True, axis=-1)
        x = spikes(*grid, 4)
        x[:, :, 0, 0] = False
        sent |= {
            "prompt.relay": spikes(SIDE, SIDE, 2 * channels),
            "prompt.lif": spikes(16),
            "blocks.0.moe.x": x,
            "blocks.0.moe.score": rng.normal(size=gates.shape),
            "blocks.0.moe.compare": spikes(*grid, EXPERTS * (EXPERTS - 1)),
            "blocks.0.moe.gate": gates,
            "blocks.0.moe.experts.0.hidden": spikes(*grid, 8),
        }
        if hold_step is not None:
            latch = np.repeat(gates[:, hold_step : hold_step + 1], STEPS, axis=1)
            latch[:, :hold_step] = False
            sent["blocks.0.moe.latch"] = latch
    labels = np.arange(SAMPLES) % 3
    return ReportFacts(
        metrics={} if metrics is None else metrics,
        classes=("zero", "one", "two"),
        images=rng.random((SAMPLES, SIDE, SIDE, channels)),
        labels=labels,
        predictions={"torch": labels, "lava_fixed": np.where(np.arange(SAMPLES) == 5, 0, labels)},
        spikes=sent,
        depth={name: i for i, name in enumerate(sent)},
        history=[
            {
                "epoch": e,
                "loss": 2.0 - e,
                "train_accuracy": 0.5,
                "validation_accuracy": 0.25 + e / 4,
            }
            for e in (0, 1)
        ],
    )


def report(value, low, high, **more):
    """An energy report as JSON values."""
    band = {"value": value, "low": low, "high": high}
    return {
        "title": "A cost table",
        "boundary": "arithmetic alone",
        "caveats": ["memory left out"],
        "samples": 64,
        "energy_pj_per_sample": band,
        "synops_per_sample": 4321.0,
        "counts_per_sample": {"accumulates": 4000.0, "spikes_sent": 77.0},
        "by_operation": {
            "accumulates": {
                "count_per_sample": 4000.0,
                "energy_pj_per_sample": band,
                "grade": "convention",
                "source": "a paper of 2014",
                "note": "one point",
            }
        },
        "by_part": {"stem": {"synops_per_sample": 9.0, "energy_pj_per_sample": band}},
        "not_priced": {"spikes_sent": "communication is ignored"},
        **more,
    }


def full_metrics():
    """Everything a demo records."""
    return {
        "command": "spikingmoe demo --out there",
        "config": {"model": {"preset": "digits", "embed_dim": 32}, "train": {"epochs": 41}},
        "seed": 1234,
        "versions": {"numpy": "1.26.4"},
        "machine": {"cores": 7},
        "accuracy": {
            "torch": 0.96875,
            "lava_float": 0.953125,
            "lava_fixed": 0.9375,
            "samples": 64,
            "test": {"torch": 0.975, "reference_fixed": 0.9665, "samples": 359},
            "twins": {"dense": 0.981, "relu": 0.9861},
        },
        "verify": {
            "float": {"compared": 987654, "differing": 0, "samples": 16},
            "fixed": {"compared": 876543, "differing": 0, "samples": 64},
            "pairs": [
                {
                    "left": "torch-float64",
                    "right": "reference",
                    "arithmetic": "float",
                    "samples": 16,
                    "compared": 987654,
                    "differing": 0,
                    "predictions_differ": 0,
                    "graded_max_difference": 3.1e-14,
                    "first": None,
                }
            ],
            "float32": {
                "samples": 64,
                "images_diverged": 1,
                "share": 1 / 64,
                "largest_margin": 3.2e-7,
            },
        },
        "synops_per_sample": {"moe": 520223.9, "dense": 464566.4, "relu": 460096},
        "energy_pj_per_sample": {"moe": 696595.0, "dense": 600919.0, "relu": 2116441.0},
        "energy": {
            "horowitz45": {
                "moe": report(696595.0, 696595.0, 1151587.0),
                "dense": report(600919.0, 600919.0, 816000.0),
            }
        },
        "experts": {"silent_share": 0.123, "load": {"blocks.0.moe": [0.4, 0.3, 0.2, 0.1]}},
        "latency_steps": {"depth": 29, "time_steps": 4, "first_sample": 33, "every": 4},
        "seconds": {"train": 41.25, "lava float": 21.0},
    }
