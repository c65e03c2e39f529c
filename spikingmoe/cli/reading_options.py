"""Options of the commands that read a trained run, and of the lists."""

from __future__ import annotations

import jsonargparse

from spikingmoe.cli.common_options import (
    add_data_dir,
    add_images,
    add_out,
    add_run,
    new_parser,
)


def evaluate_options(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = new_parser(**kwargs)
    add_run(parser)
    parser.add_argument("--data", type=str, default=None, help="data set (the run's own)")
    add_data_dir(parser)
    parser.add_argument(
        "--time-steps",
        type=str,
        default=None,
        metavar="STEPS",
        help="also with so many steps per image: a number, 1..4, or 1,2 (as trained)",
    )
    parser.add_argument(
        "--early-exit",
        type=float,
        default=None,
        metavar="POINTS",
        help="also with windows that end once the answer is sure, by a margin of the logits that may "
        "cost so many percentage points of accuracy on the validation images (off)",
    )
    add_images(parser)
    add_out(parser, "RUN/evaluate")
    return parser


def predict_options(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = new_parser(**kwargs)
    add_run(parser)
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
    add_out(parser, "none: metrics.json is written only with it")
    return parser


def bundle_options(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = new_parser(**kwargs)
    add_run(parser)
    parser.add_argument(
        "--name", type=str, required=True, help="of the two files, such as cifar-tiny"
    )
    add_out(parser, "the working directory")
    return parser


def report_options(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = new_parser(**kwargs)
    parser.add_argument(
        "run",
        metavar="RUN",
        nargs="+",
        type=str,
        help="folder that `spikingmoe train --out` wrote, or the name of a bundled checkpoint; several are compared",
    )
    add_data_dir(parser)
    parser.add_argument(
        "--samples", type=int, default=64, help="test images shown and counted (64)"
    )
    parser.add_argument(
        "-o",
        "--out",
        type=str,
        default=None,
        metavar="PAGE",
        help="output folder, or the page itself if it ends in .html (RUN/report; several runs: report)",
    )
    return parser


def inspect_options(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = new_parser(**kwargs)
    add_run(parser)
    _add_reading(parser)
    add_out(parser, "RUN/inspect")
    return parser


def lesion_options(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = new_parser(**kwargs)
    add_run(parser)
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
    add_out(parser, "RUN/lesion")
    return parser


def _add_reading(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=str, default=None, help="data set (the run's own)")
    add_data_dir(parser)
    parser.add_argument(
        "--samples",
        type=int,
        default=None,
        help="test images, evenly over the classes (1000, or all where there are fewer)",
    )


def presets_options(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = new_parser(**kwargs)
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


def recipes_options(**kwargs: object) -> jsonargparse.ArgumentParser:
    return new_parser(**kwargs)


def doctor_options(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = new_parser(**kwargs)
    add_data_dir(parser)
    parser.add_argument(
        "--thorough",
        action="store_true",
        help="import every package and build the fused kernels (up to a few minutes)",
    )
    parser.add_argument(
        "--json", type=str, default=None, metavar="FILE", help="write the checks there too"
    )
    return parser
