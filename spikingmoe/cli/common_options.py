"""Options that several commands share; torch is not imported here."""

from __future__ import annotations

from dataclasses import fields
from typing import get_type_hints

import jsonargparse

from spikingmoe.cli.help_texts import HELP
from spikingmoe.config import ModelConfig, RunOptions


def new_parser(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(**kwargs)  # type: ignore[arg-type]
    parser.add_argument("--config", action="config", help="YAML file with any of these options")
    return parser


def add_fields(parser: jsonargparse.ArgumentParser, cls: type, skip: set[str]) -> None:
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


def add_run_options(parser: jsonargparse.ArgumentParser) -> None:
    """Options that are no part of the recipe."""
    hints = get_type_hints(RunOptions)
    for field in fields(RunOptions):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=hints[field.name],
            default=field.default,
            help=f"{HELP[field.name]} ({field.default})",
        )


def add_run(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument(
        "run",
        metavar="RUN",
        help="folder that `spikingmoe train --out` wrote, or the name of a bundled checkpoint",
    )


def add_out(parser: jsonargparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--out", type=str, default=None, metavar="DIR", help=f"output folder ({default})"
    )


def add_data_dir(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-dir",
        type=str,
        default=None,
        metavar="DIR",
        help="folder of the data set ($SPIKINGMOE_DATA or ~/.cache/spikingmoe, where cifar10 and cifar100 are "
        "downloaded if they are missing)",
    )


def add_samples(
    parser: jsonargparse.ArgumentParser, default: int, what: str = "test images that Lava runs"
) -> None:
    parser.add_argument("--samples", type=int, default=default, help=f"{what} ({default})")
    parser.add_argument(
        "--time-limit", type=float, default=600.0, help="seconds one Lava run may take (600)"
    )


def add_images(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images",
        type=int,
        default=None,
        help="test images that torch and the reference run (all, at most 512)",
    )


def add_twins(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument(
        "--twins",
        type=str,
        default="true",
        help="train these if RUN/twins lacks them: true (dense,relu), false, or names with commas: dense, "
        "relu, dense_params, dense_synops, quantised_relu (true)",
    )


def add_head(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument(
        "--head",
        choices=["direct", "pooled"],
        default="direct",
        help="readout from every token's spikes, or from graded sums over the tokens, which take less synapse "
        "memory and one step more (direct)",
    )


def add_time_steps(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument(
        "--time-steps",
        type=int,
        default=None,
        help="steps that an image is presented for, at most those of training (as trained)",
    )
