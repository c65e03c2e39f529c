"""`spikingmoe train`."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

from jsonargparse import Namespace

from spikingmoe.cli.chain import train_run
from spikingmoe.cli.console import number, percent, progress, say, show_table
from spikingmoe.cli.metrics import base_metrics, test_accuracy, write_metrics
from spikingmoe.config import ModelConfig, RunOptions, TrainConfig, get_preset, override
from spikingmoe.data import load_data_for
from spikingmoe.data.user_module import ModuleData
from spikingmoe.train.checkpoint import Run

FREE_NUMBER = ("threshold", "dynamic")


def run(args: Namespace) -> int:
    """Train a preset and report its test accuracy at the last epoch."""
    config, settings = configurations(args, args.preset, args.data)
    data = load_data_for(config, args.data, args.data_dir, watch=progress)
    if args.num_classes is None:
        config = override(config, num_classes=len(data.classes))
    if args.batch_size is None and isinstance(data, ModuleData):
        settings = replace(settings, batch_size=data.batch_size)
    name = args.recipe or args.preset
    out = Path(args.out or f"runs/{name}-seed{settings.seed}")
    options = RunOptions(**{f.name: getattr(args, f.name) for f in fields(RunOptions)})
    trained = train_run(
        config, settings, data, out, resume=args.resume, title=name, options=options
    )
    accuracy = test_accuracy(trained, data, options.device)
    metrics = {
        **base_metrics("train", trained),
        "accuracy": {"test": {"torch": accuracy, "samples": len(data.test)}},
        "history": trained.history,
    }
    write_metrics(out, metrics)
    show_table(
        "training",
        ["", "value"],
        [
            ["epochs", str(trained.epoch)],
            ["parameters", f"{sum(p.numel() for p in trained.model.parameters()):,}"],
            ["validation accuracy", percent(trained.history[-1].get("validation_accuracy"))],
            [f"test accuracy (n = {len(data.test)}, last epoch)", percent(accuracy)],
            *_operations_row(trained),
        ],
    )
    say(f"run: {out}")
    return 0


def _operations_row(trained: Run) -> list[list[str]]:
    """What training counted at its end, if it did."""
    synops, budget = trained.history[-1].get("synops"), trained.train_config.synops_budget
    if synops is None:
        return []
    wanted = f", budget {number(budget)}" if budget else ""
    return [["synaptic operations per image (validation)", f"{number(synops)}{wanted}"]]


def configurations(args: Namespace, preset: str, data: str) -> tuple[ModelConfig, TrainConfig]:
    """The preset and the default recipe with what the command line changes.

    Raises:
        ValueError: for options that are wrong, contradict each other, or would do nothing.
    """
    model = {f.name: _given(args, f.name) for f in fields(ModelConfig) if f.name != "preset"}
    settings = {f.name: _given(args, f.name) for f in fields(TrainConfig) if f.name != "data"}
    config = override(get_preset(preset), **{k: v for k, v in model.items() if v is not None})
    recipe = TrainConfig(data=data, **{k: v for k, v in settings.items() if v is not None})  # type: ignore[arg-type]
    if recipe.budget_weight and config.routing not in FREE_NUMBER:
        raise ValueError(
            f"budget_weight={recipe.budget_weight} needs a routing that leaves the number of experts "
            f"free ({' or '.join(FREE_NUMBER)}), got {config.routing!r}; use 0"
        )
    if recipe.pays_for_spikes and not config.is_spiking:
        raise ValueError(
            "synops_budget, synops_weight and rate_weight are of spikes, and neuron='relu' has none; "
            "leave them out"
        )
    return config, recipe


def _given(args: Namespace, name: str) -> object:
    value = getattr(args, name, None)
    return tuple(value) if isinstance(value, list) else value
