"""Options of every command, made from the configuration dataclasses; torch is not imported here."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import re
from collections.abc import Sequence
from dataclasses import fields
from typing import get_args, get_type_hints

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
    "presets": "list the presets with their sizes",
    "inspect": "read a trained mixture: load, sureness, classes and regions per expert",
    "lesion": "silence experts, heads or the prompt: accuracy per class before and after",
}

HELP = {
    "num_classes": "number of classes",
    "input_channels": "channels of the images: 1 grey, 2 event polarities, 3 colour",
    "image_size": "height and width of the images",
    "time_steps": "steps T that a sample is presented for",
    "stem_channels": "channels of the stem's convolutions before the last",
    "stem_strides": "stride of each convolution of the stem",
    "depth": "blocks of the last stage",
    "early_depths": "blocks of each stage before it (half the channels, twice the side)",
    "embed_dim": "channels D of the residual stream, last stage",
    "num_heads": "attention heads, last stage",
    "attention": "qk, sdsa, dwconv, none, or ssa (cannot be lowered)",
    "expert_width": "hidden neurons per expert, last stage",
    "num_experts": "experts E per mixture",
    "top_k": "experts K per token (aimed at, where the number is free)",
    "num_groups": "groups of experts, for --routing hierarchical",
    "routing": "top_k, noisy_top_k, threshold, dynamic, expert_choice, hash, hierarchical, or dense",
    "route_by": "one decision per token, or per image",
    "hold": "decide at each step, or hold one decision for the window",
    "hold_step": "step whose decision is held, for --hold window; 0 is the first",
    "router_input": "what the router reads beside the prompt: the token's spikes, none, or its membrane "
    "(cannot be lowered)",
    "gate_gradient": "how the gates train the router: full (all experts), chosen (open gates), margin "
    "(open gates, by their lead) or none",
    "dispatch": "masked (all experts), grouped (chosen ones only) or auto (the faster)",
    "shared_experts": "experts that are always on",
    "mixture_every": "every n-th block is a mixture, the others dense",
    "mlp_width": "hidden neurons of dense MLPs; 0: as one expert",
    "chain": "none, depth (experts several times in a row), or time (cannot be lowered)",
    "chain_length": "how many times, for --chain depth",
    "prompt": "learned, random (frozen), none, or noise (cannot be lowered)",
    "prompt_width": "prompt neurons M",
    "prompt_grid": "the prompt pools relay cells onto a grid of this size",
    "relay_kernel": "side of the relay cells' receptive fields",
    "relay_stride": "relay cells stand at every n-th pixel",
    "cortical_feedback": "a prompt per block that also sees the block before",
    "neuron": "lif, or relu for the non-spiking twin",
    "membrane_decay": "share of the membrane kept from step to step, a multiple of 1/4096 below 1",
    "threshold": "of the membrane: a neuron spikes above it",
    "surrogate": "gradient of a spike: atan, fast_sigmoid or sigmoid",
    "detach_reset": "no gradient through the reset",
    "epochs": "passes over the training images",
    "batch_size": "images per step",
    "learning_rate": "peak learning rate of AdamW",
    "weight_decay": "of AdamW",
    "warmup_epochs": "epochs of linear warm-up",
    "label_smoothing": "share of the target spread evenly over the classes",
    "train_samples": "training images used, even over the classes; 0: all",
    "balance_weight": "weight of the Switch balance loss",
    "importance_weight": "weight of the importance loss",
    "z_weight": "weight of the router z-loss",
    "entropy_weight": "weight of the routing-entropy loss",
    "variance_weight": "weight of the variance loss",
    "orthogonality_weight": "weight of the orthogonality loss of the experts' outputs",
    "budget_weight": "weight of the loss on the number of open gates (threshold, dynamic)",
    "homeostatic_rate": "step of the homeostatic bias against the load error; 0: none",
    "initial_temperature": "of the gates' soft form at the start, from which it falls to 1; 1: none",
    "temperature_epochs": "epochs in which the temperature falls",
    "max_shift": "random translation in pixels",
    "flip": "mirror half of the training images",
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
        prog=f"spikingmoe {command}",
        description=f"{COMMANDS[command]}.",
        exit_on_error=False,
        allow_abbrev=False,
        formatter_class=argparse.HelpFormatter,
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
    wrong = re.match(r'Parser key "(\w+)":.*Got value: (.*)', str(error), re.DOTALL)
    hints = {a.dest: getattr(a, "_typehint", None) for a in parser._actions}
    if wrong and (allowed := _allowed(hints.get(wrong[1]), wrong[2])):
        return f"{wrong[1]}={wrong[2]}; {allowed}"
    hint = ""
    if "unrecognized arguments" in str(error) and any(a.nargs == "*" for a in parser._actions):
        hint = "; names stand right after RUN, before the options"
    return " ".join(str(error).split())[:400] + hint


def _allowed(hint: object, got: str) -> str | None:
    """What an option of this type takes; None for a type that is not known here."""
    if choices := [str(c) for c in get_args(hint) if isinstance(c, str)]:
        close = difflib.get_close_matches(got, choices, n=1)
        return f"use one of {', '.join(choices)}" + (f"; did you mean {close[0]}?" if close else "")
    if hint == tuple[int, ...]:
        return "needs whole numbers in brackets, such as [1,2]"
    named = {int: "a whole number", float: "a number", bool: "true or false"}
    return f"needs {named[hint]}" if hint in named else None  # type: ignore[index]


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


def _add_run(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder that `spikingmoe train --out` wrote")


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
        help="folder that holds the unpacked data set, for cifar10 and cifar100",
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
    parser.add_argument("--preset", default="digits", help="model preset (digits)")
    parser.add_argument(
        "--data", default="digits", help="data set: digits, cifar10 or cifar100 (digits)"
    )
    _add_data_dir(parser)
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
    _add_data_dir(parser)
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


_PARSERS = {
    "demo": _demo,
    "train": _train,
    "evaluate": _evaluate,
    "lower": _lower,
    "simulate": _simulate,
    "verify": _verify,
    "energy": _energy,
    "report": _report,
    "presets": _presets,
    "inspect": _inspect,
    "lesion": _lesion,
}
