"""`spikingmoe bundle`: a checkpoint that only predicts, with its model card."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from jsonargparse import Namespace

from hardware.errors import FileError
from hardware.files import write_text
from spikingmoe.cli.chain import model_name, open_run, output_folder
from spikingmoe.cli.console import say, show_table
from spikingmoe.cli.metrics import file_digest
from spikingmoe.cli.predict import notes_of
from spikingmoe.cli.report import earlier_metrics
from spikingmoe.config import PRESETS, ModelConfig, TrainConfig
from spikingmoe.data import FOLDER
from spikingmoe.train.bundled import NAME, SUFFIX
from spikingmoe.train.checkpoint import ABOUT, ArchiveIO, Run, read_checkpoint

MOST_BYTES = 4_000_000  # of weights: every installation carries what the package holds


def run(args: Namespace) -> int:
    """Write NAME.safetensors (float32 weights and what they are, nothing else) and NAME.md."""
    if not NAME.fullmatch(args.name):
        raise ValueError(
            f"name={args.name!r}; use small letters, digits, '-' and '.', such as cifar-tiny"
        )
    trained = open_run(args.run)
    notes_of(trained, args.run)
    measured = measured_of(trained, args.run)
    weights = sum(v.numel() * v.element_size() for v in trained.model.state_dict().values())
    if weights >= MOST_BYTES:
        raise ValueError(
            f"{args.run}: has {weights / 1e6:.2f} MB of weights; less than {MOST_BYTES / 1e6:.0f} MB "
            f"can be bundled, use a smaller preset"
        )
    out = output_folder(args.out, Path("."))
    path, card = out / f"{args.name}{SUFFIX}", out / f"{args.name}.md"
    for file in (path, card):
        if file.exists():
            raise FileError(f"{file}: is there already; remove it, or use another --name or --out")
    write_stripped(trained, path)
    write_text(card, model_card(args.name, trained, measured, path))
    show_table(
        f"bundled {args.name}",
        ["", "value"],
        [
            ["checkpoint", str(path)],
            ["bytes", f"{path.stat().st_size:,}"],
            ["sha-256", file_digest(path)],
            ["model card", str(card)],
        ],
    )
    say(
        f"in the folder spikingmoe/checkpoints it is found by its name: spikingmoe evaluate {args.name}"
    )
    return 0


def measured_of(trained: Run, given: str) -> dict:
    """Accuracy and synaptic operations that were measured of this very checkpoint."""
    measured = earlier_metrics(trained)
    has_accuracy = {"torch", "samples"} <= set(measured.get("accuracy", {}).get("test", {}))
    if not has_accuracy or model_name(trained) not in measured.get("synops_per_sample", {}):
        raise ValueError(
            f"{given}: its accuracy and synaptic operations are not known for the card; "
            f"run `spikingmoe energy {given} --twins false` first"
        )
    return measured


def write_stripped(trained: Run, path: Path) -> None:
    """The weights of a run and what its checkpoint says of itself, without the state of training."""
    content = {
        "epoch": trained.epoch - 1,
        "state_dict": {f"model.{k}": v for k, v in trained.model.state_dict().items()},
        ABOUT: read_checkpoint(trained.path)[ABOUT],
    }
    ArchiveIO().save_checkpoint(content, path)


def model_card(name: str, trained: Run, measured: dict, path: Path) -> str:
    """The card in Markdown: what it is, how it was made, what was measured, how to check it."""
    test, own = measured["accuracy"]["test"], model_name(trained)
    model, recipe = trained.model_config, trained.train_config
    notes = trained.data_notes
    assert notes is not None
    c, size, _ = trained.model.input_shape
    rows = [
        ("data", f"{recipe.data}, images {c}x{size}x{size}"),
        ("classes", ", ".join(notes.classes) if len(notes.classes) <= 20 else len(notes.classes)),
        ("preset", model.preset),
        ("parameters", f"{sum(p.numel() for p in trained.model.parameters()):,}"),
        ("time steps", model.time_steps),
        ("epochs", trained.epoch),
        ("seed", recipe.seed),
        ("test accuracy", f"{100 * test['torch']:.2f} % (n = {test['samples']}, last epoch)"),
        (
            "synaptic operations per image",
            f"{measured['synops_per_sample'][own]:,.0f} (counted on: "
            f"{measured.get('energy_counted_on', 'not said')})",
        ),
        ("trained with", ", ".join(f"{k} {v}" for k, v in trained.versions.items())),
        ("SHA-256", f"`{file_digest(path)}`"),
    ]
    table = "\n".join(f"| {label} | {value} |" for label, value in rows)
    data_dir = " --data-dir DIR" if recipe.data == FOLDER else ""
    return f"""# {name}

A spiking network of this project, float32 weights without the state of training.

| | |
|---|---|
{table}

Made with

    {train_command(model, recipe)}{data_dir}

Use it by name or as a file:

    spikingmoe predict {name} IMAGE...
    spikingmoe evaluate {name}{data_dir}

The accuracy is that of one seed. The data set is not part of this file.
"""


def train_command(model: ModelConfig, recipe: TrainConfig) -> str:
    """The command line that trains a configuration: what differs from the preset and the recipe."""
    preset = model.preset if model.preset in PRESETS else "digits"
    words = [f"spikingmoe train --preset {preset} --data {recipe.data}"]
    for own, usual in ((recipe, TrainConfig()), (model, PRESETS[preset])):
        for field in fields(own):
            value = getattr(own, field.name)
            if field.name not in ("data", "preset") and value != getattr(usual, field.name):
                words.append(f"--{field.name.replace('_', '-')} {_option(value)}")
    return " ".join(words)


def _option(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{','.join(map(str, value))}]"
    return str(value)
