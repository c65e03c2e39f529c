"""Options of the commands that fetch data and train."""

from __future__ import annotations

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
from spikingmoe.config import ModelConfig, TrainConfig


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
    add_fields(parser, TrainConfig, {"data"})
    add_fields(parser, ModelConfig, {"preset"})
    return parser


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
