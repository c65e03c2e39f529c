"""Fewer steps at inference: shorter windows for all images, or for those whose answer is sure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jsonargparse import Namespace

from hardware.early_exit import StepRecord, choose_threshold, record_steps, window_energies
from hardware.lowering import lower
from hardware.simulate import simulate_batches
from spikingmoe.cli.chain import test_images
from spikingmoe.cli.console import number, percent, show_table
from spikingmoe.cli.twins import load_twins
from spikingmoe.config import override
from spikingmoe.data.image_data import ImageData, Split
from spikingmoe.model import SpikingTransformer
from spikingmoe.train.checkpoint import Run

COSTS, ENERGY = "horowitz45", "energy_nj_horowitz45"


def with_time_steps(run: Run, steps: int | None) -> Run:
    """The same weights in windows of fewer steps; None: as trained.

    Raises:
        ValueError: more steps than the run was trained for: its batch norms hold the statistics of
            those; or a window that ends before the step whose decision is held.
    """
    trained = run.model_config.time_steps
    if steps is None or steps == trained:
        return run
    _check_steps(steps, trained)
    config = override(run.model_config, time_steps=steps)
    model = SpikingTransformer(config)
    model.load_state_dict(run.model.state_dict())
    return replace(run, model=model.eval(), model_config=config)


def parse_steps(text: str, trained: int) -> list[int]:
    """ "3", "1..4" or "1,2,4" as numbers of steps; ValueError for others, or more than trained."""
    if span := re.fullmatch(r"(\d+)\.\.(\d+)", text.strip()):
        found = list(range(int(span[1]), int(span[2]) + 1))
    elif re.fullmatch(r"\d+(,\d+)*", text.strip()):
        found = sorted({int(part) for part in text.split(",")})
    else:
        found = []
    if not found:
        raise ValueError(f"time_steps={text!r}; use a number, 1..{trained}, or a list such as 1,2")
    for steps in (found[0], found[-1]):
        _check_steps(steps, trained)
    return found


def fewer_steps(run: Run, data: ImageData, args: Namespace) -> dict[str, object]:
    """The tables that --time-steps and --early-exit ask for, shown; their part of metrics.json."""
    test = test_images(data, args.images)
    record = record_split(run, test)
    found: dict[str, object] = {"counted_on": f"reference, floating point, {len(test)} test images"}
    if args.time_steps is not None:
        steps = parse_steps(args.time_steps, run.model_config.time_steps)
        found["steps"] = rows = [steps_row(record, test, k) for k in steps]
        add_energies(run, test, rows, steps)
        _show("fewer time steps", rows, len(test))
    if args.early_exit is not None:
        if not len(data.validation):
            raise ValueError("early_exit: no validation images to choose a threshold on")
        held_out = record_split(run, data.validation)
        loss = args.early_exit / 100
        threshold = choose_threshold(held_out, data.validation.labels.numpy(), loss=loss)
        found["early_exit"] = exits = {
            "allowed_points": args.early_exit,
            "validation_samples": len(data.validation),
            **exit_row(record, test, threshold),
        }
        whole = steps_row(record, test, run.model_config.time_steps)
        ways = [run.model_config.time_steps, record.exit_steps(threshold)]
        add_energies(run, test, [whole, exits], ways)
        _show_exit(exits, whole, test)
    return found


def record_split(run: Run, split: Split) -> StepRecord:
    """Every step of the reference in floating point on all images of a split."""
    graph = lower(run.model)
    return record_steps(graph, simulate_batches(graph, split.images))


def steps_row(record: StepRecord, split: Split, steps: int) -> dict[str, float]:
    """Accuracy, operations and latency of windows of `steps` steps."""
    right = record.predictions(np.asarray(steps)) == split.labels.numpy()
    return {
        "steps": steps,
        "accuracy": float(right.mean()),
        "synops_per_sample": float(record.executed(steps).mean()),
        "latency_steps": record.depth + steps,
        "interval_steps": steps,
    }


def exit_row(record: StepRecord, split: Split, threshold: float) -> dict[str, object]:
    """The same for windows that end when the margin reaches `threshold`."""
    steps = record.exit_steps(threshold)
    whole = record.logits.shape[1]
    right = record.predictions(steps) == split.labels.numpy()
    return {
        "threshold": threshold if np.isfinite(threshold) else None,
        "steps": float(steps.mean()),
        "accuracy": float(right.mean()),
        "synops_per_sample": float(record.executed(steps).mean()),
        "synops_per_sample_in_flight": float(record.executed(steps, in_flight=True).mean()),
        "latency_steps": float(record.latency(steps).mean()),
        "interval_steps": float(record.interval(steps).mean()),
        "histogram": np.bincount(steps, minlength=whole + 1)[1:].tolist(),
    }


def add_energies(
    run: Run, split: Split, rows: Sequence[dict], steps: Sequence[np.ndarray | int]
) -> None:
    """Put the estimated energy per image, nJ, under `COSTS` into each row; `steps` of its windows.

    None where a window ends before the step whose decision is held: there is no such network.
    """
    graph, held = lower(run.model), held_step(run)
    able = [i for i, way in enumerate(steps) if int(np.min(way)) > held]
    ways = [steps[i] for i in able]
    energies = window_energies(graph, simulate_batches(graph, split.images), ways, COSTS)
    for row in rows:
        row[ENERGY] = None
    for i, energy in zip(able, energies, strict=True):
        rows[i][ENERGY] = energy / 1e3


def held_step(run: Run) -> int:
    """The step whose decision is held over the window; -1 if each step decides for itself."""
    config = run.model_config
    return config.hold_step if config.hold == "window" else -1


def test_in_steps(data: ImageData, as_trained: Run, run: Run) -> ImageData:
    """The data with the first steps of its test frames, as a run with fewer steps takes them."""
    steps, test = run.model_config.time_steps, data.test
    if test.time_steps is None or run is as_trained:
        return data
    return replace(data, test=replace(test, stored=test.stored[:, :steps]))


def open_twins(
    as_trained: Run, run: Run, data: ImageData, *, make: Sequence[str]
) -> dict[str, Run]:
    """The twins of a run: trained on `data` with all its steps, then in windows of as many as `run` has."""
    twins = load_twins(as_trained, as_trained.folder / "twins", data, make=make)
    steps = run.model_config.time_steps
    return {
        name: with_time_steps(twin, steps) if twin.model_config.is_spiking else twin
        for name, twin in twins.items()
    }


def _check_steps(steps: int, trained: int) -> None:
    if not 1 <= steps <= trained:
        raise ValueError(
            f"time_steps={steps}; the run was trained for {trained} and its batch norms hold their "
            f"statistics, use 1 to {trained}"
        )


def _show(title: str, rows: list[dict[str, float]], samples: int) -> None:
    show_table(
        f"{title}, {samples} test images",
        [
            *("steps", "accuracy", "synaptic operations", f"nJ ({COSTS}, estimate)"),
            *("latency (steps)", "a sample every"),
        ],
        [
            [
                str(row["steps"]),
                percent(row["accuracy"]),
                number(row["synops_per_sample"]),
                _energy(row),
                str(row["latency_steps"]),
                str(row["interval_steps"]),
            ]
            for row in rows
        ],
    )


def _energy(row: dict) -> str:
    return "-" if row[ENERGY] is None else f"{row[ENERGY]:,.1f}"


def _show_exit(exits: dict, whole: dict, split: Split) -> None:
    threshold = exits["threshold"]
    show_table(
        f"early exit, {len(split)} test images",
        ["", "whole window", "early exit"],
        [
            ["margin of the logits", "-", "never" if threshold is None else f"{threshold:.3f}"],
            ["mean steps", f"{whole['steps']:.2f}", f"{exits['steps']:.2f}"],
            ["accuracy", percent(whole["accuracy"]), percent(exits["accuracy"])],
            [
                "synaptic operations, no step begun in vain",
                number(whole["synops_per_sample"]),
                number(exits["synops_per_sample"]),
            ],
            [
                "the same with what is in flight when the host hears",
                number(whole["synops_per_sample"]),
                number(exits["synops_per_sample_in_flight"]),
            ],
            [
                f"energy, nJ ({COSTS}, estimate), no step begun in vain",
                _energy(whole),
                _energy(exits),
            ],
            ["latency (steps)", f"{whole['latency_steps']}", f"{exits['latency_steps']:.2f}"],
            [
                "a sample every (steps)",
                f"{whole['interval_steps']}",
                f"{exits['interval_steps']:.2f}",
            ],
            ["images that end after 1, 2, ... steps", "-", " ".join(map(str, exits["histogram"]))],
        ],
    )
