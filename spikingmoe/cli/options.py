"""Options of every command, made from the configuration dataclasses; torch is not imported here."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
from collections.abc import Sequence
from dataclasses import fields
from typing import get_type_hints

import jsonargparse

from spikingmoe.config import ModelConfig, TrainConfig, unknown

COMMANDS = {
    "demo": "the whole chain on real images: train, lower, run on Lava, verify, energy, report",
    "train": "train a preset on a data set",
    "evaluate": "test accuracy of a trained run",
    "lower": "turn a trained run into a program for Lava",
    "simulate": "run a program on a backend",
    "verify": "compare torch, the reference and Lava spike by spike",
    "energy": "estimate energy from counted operations, with the twins beside it",
    "report": "write the report page of a run",
}

HELP = {
    "num_classes": "number of classes",
    "time_steps": "steps T that a sample is presented for",
    "depth": "number of blocks",
    "embed_dim": "channels D of the residual stream",
    "num_heads": "attention heads",
    "expert_width": "hidden neurons per expert",
    "num_experts": "experts E per mixture",
    "top_k": "experts K chosen per token",
    "routing": "top_k, or dense (one expert, always on)",
    "hold": "decide at each step, or hold one decision for the window",
    "hold_step": "step whose decision is held",
    "epochs": "passes over the training images",
    "batch_size": "images per step",
    "learning_rate": "peak learning rate of AdamW",
    "threads": "CPU threads of training",
    "seed": "seed of weights, order and augmentation",
}


class UsageError(ValueError):
    """The command line is wrong."""


def parse(argv: list[str]) -> tuple[str, jsonargparse.Namespace]:
    """(command, its options); prints help and exits where that is asked for.

    Raises:
        UsageError: unknown command or option, or a value of the wrong type.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview())
        raise SystemExit(0 if argv else 2)
    if argv[0] == "--version":
        from spikingmoe import __version__

        print(f"spikingmoe {__version__}")
        raise SystemExit(0)
    command = argv[0]
    if command not in COMMANDS:
        raise UsageError(unknown("command", command, COMMANDS))
    parser = _PARSERS[command](
        prog=f"spikingmoe {command}", description=f"{COMMANDS[command]}.", exit_on_error=False
    )
    silenced = io.StringIO()
    try:
        with contextlib.redirect_stderr(silenced):
            return command, parser.parse_args(argv[1:])
    except (jsonargparse.ArgumentError, argparse.ArgumentError) as error:
        raise UsageError(f"{command}: {_explain(parser, argv[1:], error)}") from None


def _explain(parser: jsonargparse.ArgumentParser, argv: Sequence[str], error: Exception) -> str:
    known = [o for action in parser._actions for o in action.option_strings]
    for word in argv:
        name = word.split("=")[0]
        if name.startswith("--") and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            return f"unknown option {name}{hint} (see spikingmoe {parser.prog.split()[-1]} --help)"
    return " ".join(str(error).split())[:400]


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = ["usage: spikingmoe COMMAND [options]", "", "commands:"]
    lines += [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    lines += ["", "spikingmoe COMMAND --help lists the options of a command."]
    return "\n".join(lines)


def _parser(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(**kwargs)  # type: ignore[arg-type]
    parser.add_argument("--config", action="config", help="YAML file with any of these options")
    return parser


def _add_fields(parser: jsonargparse.ArgumentParser, cls: type, skip: set[str]) -> None:
    """One option per field of a configuration; what is not given comes from the preset."""
    hints = get_type_hints(cls)
    for field in fields(cls):
        if field.name not in skip:
            parser.add_argument(
                f"--{field.name.replace('_', '-')}",
                type=hints[field.name],
                default=None,
                help=f"{HELP.get(field.name, field.name.replace('_', ' '))} (digits: {field.default})",
            )


def _add_run(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder that `spikingmoe train --out` wrote")


def _add_out(parser: jsonargparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--out", type=str, default=None, metavar="DIR", help=f"output folder ({default})"
    )


def _add_samples(parser: jsonargparse.ArgumentParser, default: int) -> None:
    parser.add_argument(
        "--samples", type=int, default=default, help=f"test images that Lava runs ({default})"
    )
    parser.add_argument(
        "--time-limit", type=float, default=600.0, help="seconds one Lava run may take (600)"
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
    parser.add_argument("--preset", default="digits", help="model preset (digits)")
    parser.add_argument("--data", default="digits", help="data set (digits)")
    _add_out(parser, "runs/PRESET-seedN")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    _add_fields(parser, TrainConfig, {"data"})
    _add_fields(parser, ModelConfig, {"preset"})
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
    _add_out(parser, "RUN/evaluate")
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
    _add_samples(parser, 64)
    _add_out(parser, "beside PROGRAM: PROGRAM.simulate")
    return parser


def _verify(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = _parser(**kwargs)
    _add_run(parser)
    _add_samples(parser, 64)
    _add_twins(parser)
    _add_out(parser, "RUN/verify")
    return parser


def _energy(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = _parser(**kwargs)
    _add_run(parser)
    parser.add_argument(
        "--costs", default="horowitz45", help="cost table: horowitz45 or loihi1 (horowitz45)"
    )
    _add_twins(parser)
    _add_out(parser, "RUN/energy")
    return parser


def _report(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = _parser(**kwargs)
    _add_run(parser)
    parser.add_argument(
        "--samples", type=int, default=64, help="test images shown and counted (64)"
    )
    _add_out(parser, "RUN/report")
    return parser


_PARSERS = {
    "demo": _demo,
    "train": _train,
    "evaluate": _evaluate,
    "lower": _lower,
    "simulate": _simulate,
    "verify": _verify,
    "energy": _energy,
    "report": _report,
}
