"""`spikingmoe quantise`."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path

from jsonargparse import Namespace

from hardware.errors import FileError
from hardware.ir.graph import SpikeGraph
from hardware.ir.reference import BATCH
from hardware.lowering.integer import run_torch_batches
from hardware.passes.plan import apply_plan
from hardware.passes.pool_tokens import pool_tokens
from hardware.passes.quantise import quantise
from hardware.simulate import simulate_batches, to_inputs
from hardware.verify import Comparison, compare_traces, join_comparisons
from spikingmoe.cli.chain import Clock, open_data, open_run, output_folder
from spikingmoe.cli.console import number, percent, progress, say, show_table
from spikingmoe.cli.metrics import base_metrics, write_metrics
from spikingmoe.data.image_data import ImageData, Split
from spikingmoe.kernels import keep_freed_memory
from spikingmoe.train.checkpoint import Run
from spikingmoe.train.fit import evaluate
from spikingmoe.train.quantised import (
    QuantiseSettings,
    calibrated_plan,
    float_graph,
    program_accuracy,
    tuned_graph,
)

FLOAT, ROUNDED, CALIBRATED, TUNED = "float", "rounded", "calibrated", "tuned"


def run(args: Namespace) -> int:
    """Write a program in integers, and say what it costs in accuracy."""
    settings = QuantiseSettings(**{f.name: getattr(args, f.name) for f in fields(QuantiseSettings)})
    if Path(args.output).is_dir():
        raise FileError(f"{args.output}: is a folder; name a file, such as {args.output}/x.program")
    if args.check < 1:
        raise ValueError(f"check={args.check}; use at least 1 image")
    trained = open_run(args.run)
    keep_freed_memory()
    data = open_data(trained, args)
    out = output_folder(args.out, Path(f"{args.output}.quantise"))
    state = out / "tuning.state"
    if not args.resume:
        state.unlink(missing_ok=True)
    clock = Clock()
    programs, losses = _programs(trained, data, settings, state, clock)
    if args.head == "pooled":
        programs = {step: pool_tokens(program) for step, program in programs.items()}
    name = list(programs)[-1]
    programs[name].save(args.output)
    test = data.test.first(args.images) if args.images else data.test
    with clock.stage("accuracy"):
        accuracy = _accuracies(trained, programs, data.validation, test)
    with clock.stage("check"):
        exact = _against_reference(programs[name], test.first(min(args.check, len(test))))
    rows = [
        [what, percent(found["validation"]), percent(found["test"])]
        for what, found in accuracy.items()
    ]
    show_table(
        f"{args.run} with weights of {settings.weight_bits} bits",
        ["", f"validation (n = {len(data.validation)})", f"test (n = {len(test)})"],
        rows,
    )
    say(
        f"torch and reference, {exact.samples} test images: {number(exact.compared)} spikes and "
        f"messages compared, {number(exact.differing)} differ"
    )
    say(f"program {args.output} ({name}); sha-256 of the content: {programs[name].fingerprint}")
    metrics = {
        **base_metrics("quantise", trained),
        "program": str(args.output),
        "written": name,
        "settings": asdict(settings),
        "accuracy": accuracy,
        "samples": {"validation": len(data.validation), "test": len(test)},
        "tuning_losses": losses,
        "torch_against_reference": exact.as_dict(),
        "seconds": clock.seconds,
    }
    say(f"metrics: {write_metrics(out, metrics)}")
    return 0 if exact.same else 1


def _programs(
    trained: Run, data: ImageData, settings: QuantiseSettings, state: Path, clock: Clock
) -> tuple[dict[str, SpikeGraph], list[float]]:
    """Each step's program; the last is the one that is kept."""
    with clock.stage("lower"):
        graph = float_graph(trained, settings)
        programs = {ROUNDED: quantise(graph, weight_bits=settings.weight_bits)}
    losses: list[float] = []
    if settings.calibration or settings.epochs:
        with clock.stage("calibrate"):
            plan = calibrated_plan(graph, data, settings)
        programs[CALIBRATED] = apply_plan(graph, plan)
        if settings.epochs:
            title = f"tuning, {settings.epochs} epochs"
            with clock.stage("tune"), progress(title) as update:
                programs[TUNED], losses = tuned_graph(
                    trained,
                    data,
                    graph,
                    plan,
                    settings,
                    state=state,
                    watch=lambda step, steps, _loss: update(step, steps),
                )
    return programs, losses


def _accuracies(
    trained: Run, programs: dict[str, SpikeGraph], validation: Split, test: Split
) -> dict[str, dict[str, float]]:
    splits = {"validation": validation, "test": test}
    found = {FLOAT: {k: evaluate(trained.model, s)[0] for k, s in splits.items()}}
    for name, program in programs.items():
        found[name] = {}
        for which, split in splits.items():
            with progress(f"{name}, {len(split)} {which} images") as update:
                found[name][which] = program_accuracy(program, split, update)
    return found


def _against_reference(program: SpikeGraph, split: Split) -> Comparison:
    """The integer network in torch against the reference: all spikes, messages and logits."""
    parts, done = [], 0
    starts = range(0, len(split), BATCH)
    inputs = (to_inputs(program, split.at(slice(at, at + BATCH)).images) for at in starts)
    ours = run_torch_batches(program, inputs)
    with progress(f"torch and reference, {len(split)} images") as update:
        for reference in simulate_batches(program, split.images, size=BATCH):
            parts.append(compare_traces(program, reference, next(ours)))
            done += reference.samples
            update(done, len(split))
    return join_comparisons(program, parts)
