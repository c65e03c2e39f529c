"""Options of every command, made from the configuration dataclasses; torch is not imported here."""

from __future__ import annotations

from dataclasses import fields
from typing import get_type_hints

import jsonargparse

from spikingmoe.cli.help_texts import HELP
from spikingmoe.config import ModelConfig, RunOptions, TrainConfig

COMMANDS = {
    "demo": "the whole chain on real images: train, lower, run on Lava, verify, energy, report",
    "download": "bring a published data set into a folder",
    "train": "train a preset on a data set",
    "evaluate": "test accuracy of a trained run",
    "predict": "classify image files with a trained run",
    "lower": "turn a trained run into a program for Lava",
    "simulate": "run a program on a backend",
    "verify": "compare torch, the reference and Lava spike by spike",
    "energy": "estimate energy from counted operations, with the twins beside it",
    "report": "write the report page of a run",
    "presets": "list the presets with their sizes",
    "recipes": "list the recipes that train can follow",
    "inspect": "read a trained mixture: load, sureness, classes and regions per expert",
    "lesion": "silence experts, heads or the prompt: accuracy per class before and after",
    "bundle": "write a checkpoint that only predicts, with its model card",
}


def _parser(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(**kwargs)  # type: ignore[arg-type]
    parser.add_argument("--config", action="config", help="YAML file with any of these options")
    return parser


def _add_fields(parser: jsonargparse.ArgumentParser, cls: type, skip: set[str]) -> None:
    """One option per field of a configuration; what is not given comes from preset and recipe."""
    hints = get_type_hints(cls)
    whose = "digits: " if cls is ModelConfig else ""
    for field in fields(cls):
        if field.name not in skip:
            parser.add_argument(
                f"--{field.name.replace('_', '-')}",
                type=hints[field.name],
                default=None,
                help=f"{HELP.get(field.name, field.name.replace('_', ' '))} ({whose}{field.default})",
            )


def _add_run_options(parser: jsonargparse.ArgumentParser) -> None:
    """Options that are no part of the recipe."""
    hints = get_type_hints(RunOptions)
    for field in fields(RunOptions):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=hints[field.name],
            default=field.default,
            help=f"{HELP[field.name]} ({field.default})",
        )


def _add_run(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument(
        "run",
        metavar="RUN",
        help="folder that `spikingmoe train --out` wrote, or the name of a bundled checkpoint",
    )


def _add_out(parser: jsonargparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--out", type=str, default=None, metavar="DIR", help=f"output folder ({default})"
    )


def _add_data_dir(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-dir",
        type=str,
        default=None,
        metavar="DIR",
        help="folder of the data set ($SPIKINGMOE_DATA or ~/.cache/spikingmoe, where cifar10 and cifar100 are "
        "downloaded if they are missing)",
    )


def _add_samples(
    parser: jsonargparse.ArgumentParser, default: int, what: str = "test images that Lava runs"
) -> None:
    parser.add_argument("--samples", type=int, default=default, help=f"{what} ({default})")
    parser.add_argument(
        "--time-limit", type=float, default=600.0, help="seconds one Lava run may take (600)"
    )


def _add_images(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images",
        type=int,
        default=None,
        help="test images that torch and the reference run (all, at most 512)",
    )


def _add_twins(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument(
        "--twins",
        type=bool,
        default=True,
        help="train the dense and the ReLU twin if RUN/twins lacks them (true)",
    )


def _train(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = _parser(**kwargs)
    parser.add_argument(
        "--recipe",
        type=str,
        default=None,
        metavar="NAME",
        help="options by name (see spikingmoe recipes); all others given here win over it",
    )
    parser.add_argument("--preset", default="digits", help="model preset (digits)")
    parser.add_argument(
        "--data",
        default="digits",
        help="data set: digits; cifar10, cifar100; nmnist, dvsgesture, cifar10dvs (events); or folder: images of "
        "your own in DIR/train/CLASS/*.png or jpg, and DIR/validation, DIR/test if there are any; or a "
        "LightningDataModule of your own as package.module:ClassName or file.py:ClassName (digits)",
    )
    _add_data_dir(parser)
    _add_out(parser, "runs/PRESET-seedN")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    _add_run_options(parser)
    _add_fields(parser, TrainConfig, {"data"})
    _add_fields(parser, ModelConfig, {"preset"})
    return parser


def _download(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = _parser(**kwargs)
    parser.add_argument(
        "name", metavar="NAME", help="cifar10, cifar100, nmnist, dvsgesture or cifar10dvs"
    )
    parser.add_argument(
        "--data-dir",
        type=str,
        default=None,
        metavar="DIR",
        help="folder to bring it into ($SPIKINGMOE_DATA or ~/.cache/spikingmoe)",
    )
    parser.add_argument(
        "--url",
        type=str,
        default=None,
        help="another address of the archive; ending in /, of a place that has all archives (where it is published)",
    )
    return parser


def _demo(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = _parser(**kwargs)
    _add_out(parser, "demo")
    parser.add_argument("--resume", action="store_true", help="keep what an earlier demo trained")
    _add_samples(parser, 64)
    for name in ("epochs", "seed", "num_experts", "top_k", "hold"):
        cls = TrainConfig if name in ("epochs", "seed") else ModelConfig
        names = {f.name for f in fields(cls)}
        _add_fields(parser, cls, names - {name})
    return parser


def _evaluate(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = _parser(**kwargs)
    _add_run(parser)
    parser.add_argument("--data", type=str, default=None, help="data set (the run's own)")
    _add_data_dir(parser)
    _add_out(parser, "RUN/evaluate")
    return parser


def _predict(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = _parser(**kwargs)
    _add_run(parser)
    parser.add_argument(
        "images",
        metavar="IMAGE",
        nargs="+",
        type=str,
        help="png, jpg or webp files, right after RUN; the middle square is resized to the input",
    )
    parser.add_argument(
        "--top", type=int, default=2, metavar="N", help="classes told per image (2)"
    )
    _add_out(parser, "none: metrics.json is written only with it")
    return parser


def _bundle(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = _parser(**kwargs)
    _add_run(parser)
    parser.add_argument(
        "--name", type=str, required=True, help="of the two files, such as cifar-tiny"
    )
    _add_out(parser, "the working directory")
    return parser


def _lower(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = _parser(**kwargs)
    _add_run(parser)
    parser.add_argument("-o", "--output", required=True, metavar="PROGRAM", help="file to write")
    parser.add_argument("--fixed", action="store_true", help="quantise to Loihi's integers")
    parser.add_argument(
        "--residual",
        choices=["relay", "unrolled"],
        default="relay",
        help="sum the residual stream in graded relays, or repeat synapses per reader (relay)",
    )
    return parser


def _simulate(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = _parser(**kwargs)
    parser.add_argument("program", metavar="PROGRAM", help="file that `spikingmoe lower` wrote")
    parser.add_argument(
        "--backend", default="lava", help="reference, lava, lava-stock or stream (lava)"
    )
    parser.add_argument(
        "--arithmetic", type=str, default=None, help="float or fixed (the program's)"
    )
    parser.add_argument("--data", type=str, default=None, help="data set (the program's)")
    _add_data_dir(parser)
    _add_samples(parser, 64, "test images, the first ones")
    _add_out(parser, "beside PROGRAM: PROGRAM.simulate")
    return parser


def _verify(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = _parser(**kwargs)
    _add_run(parser)
    _add_data_dir(parser)
    _add_images(parser)
    _add_samples(parser, 64)
    _add_twins(parser)
    _add_out(parser, "RUN/verify")
    return parser


def _energy(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = _parser(**kwargs)
    _add_run(parser)
    _add_data_dir(parser)
    _add_images(parser)
    parser.add_argument(
        "--costs", default="horowitz45", help="cost table: horowitz45 or loihi1 (horowitz45)"
    )
    _add_twins(parser)
    _add_out(parser, "RUN/energy")
    return parser


def _report(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = _parser(**kwargs)
    _add_run(parser)
    _add_data_dir(parser)
    parser.add_argument(
        "--samples", type=int, default=64, help="test images shown and counted (64)"
    )
    _add_out(parser, "RUN/report")
    return parser


def _inspect(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = _parser(**kwargs)
    _add_run(parser)
    _add_reading(parser)
    _add_out(parser, "RUN/inspect")
    return parser


def _lesion(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = _parser(**kwargs)
    _add_run(parser)
    parser.add_argument(
        "targets",
        metavar="TARGET",
        nargs="*",
        type=str,
        help="what to silence, right after RUN, such as blocks.0.moe.experts.2, blocks.*.moe.experts.busiest, "
        "blocks.1.attention.heads.0, blocks.1.attention, blocks.0.moe or prompt (all there are)",
    )
    parser.add_argument(
        "--reroute",
        action="store_true",
        help="tokens of a silenced expert go to the runner-up instead of going without",
    )
    parser.add_argument(
        "--together", action="store_true", help="silence all targets at once, not one at a time"
    )
    _add_reading(parser)
    _add_out(parser, "RUN/lesion")
    return parser


def _add_reading(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=str, default=None, help="data set (the run's own)")
    _add_data_dir(parser)
    parser.add_argument(
        "--samples",
        type=int,
        default=None,
        help="test images, evenly over the classes (1000, or all where there are fewer)",
    )


def _presets(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = _parser(**kwargs)
    parser.add_argument(
        "--classes", type=int, default=None, metavar="N", help="number of classes (each preset's)"
    )
    parser.add_argument(
        "--rate",
        type=float,
        default=0.15,
        help="spikes per neuron and step that operations are estimated for (0.15)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")
    return parser


def _recipes(**kwargs: object) -> jsonargparse.ArgumentParser:
    return _parser(**kwargs)


PARSERS = {
    "demo": _demo,
    "download": _download,
    "train": _train,
    "evaluate": _evaluate,
    "predict": _predict,
    "lower": _lower,
    "simulate": _simulate,
    "verify": _verify,
    "energy": _energy,
    "report": _report,
    "presets": _presets,
    "recipes": _recipes,
    "inspect": _inspect,
    "lesion": _lesion,
    "bundle": _bundle,
}
