"""Options of the commands that fetch data and train."""

from __future__ import annotations

from argparse import ArgumentTypeError
from dataclasses import fields

import jsonargparse

from spikingmoe.cli.common_options import (
    add_data_dir,
    add_fields,
    add_out,
    add_run_options,
    add_samples,
    add_twins,
    new_parser,
)
from spikingmoe.cli.help_texts import HELP
from spikingmoe.config import ModelConfig, TrainConfig

UNITS = {"k": 1e3, "M": 1e6, "G": 1e9}


def train_options(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = new_parser(**kwargs)
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
        help="data set: digits, digits-binary; cifar10, cifar100; nmnist, dvsgesture, cifar10dvs (events); or folder: images of "
        "your own in DIR/train/CLASS/*.png or jpg, and DIR/validation, DIR/test if there are any; or a "
        "LightningDataModule of your own as package.module:ClassName or file.py:ClassName (digits)",
    )
    add_data_dir(parser)
    add_out(parser, "runs/PRESET-seedN")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    add_run_options(parser)
    parser.add_argument(
        "--synops-budget", type=operations, default=None, help=f"{HELP['synops_budget']} (0)"
    )
    add_fields(parser, TrainConfig, {"data", "synops_budget"})
    add_fields(parser, ModelConfig, {"preset"})
    return parser


def operations(text: str | float) -> float:
    """A number of operations: 400000, 400k or 2M; ArgumentTypeError for anything else."""
    number, unit = str(text).strip(), 1.0
    if number[-1:] in UNITS:
        number, unit = number[:-1], UNITS[number[-1]]
    try:
        return float(number) * unit
    except ValueError:
        raise ArgumentTypeError(
            f"{text!r} is no number of operations; use one such as 400000, 400k or 2M"
        ) from None


def download_options(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = new_parser(**kwargs)
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


def demo_options(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = new_parser(**kwargs)
    add_out(parser, "demo")
    parser.add_argument("--resume", action="store_true", help="keep what an earlier demo trained")
    add_samples(parser, 64)
    add_twins(parser)
    for name in ("epochs", "seed", "num_experts", "top_k", "hold"):
        cls = TrainConfig if name in ("epochs", "seed") else ModelConfig
        names = {f.name for f in fields(cls)}
        add_fields(parser, cls, names - {name})
    return parser
