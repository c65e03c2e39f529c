"""Options of the commands that lower, simulate, verify and count."""

from __future__ import annotations

import jsonargparse

from spikingmoe.cli.common_options import (
    add_data_dir,
    add_head,
    add_images,
    add_out,
    add_run,
    add_samples,
    add_time_steps,
    add_twins,
    new_parser,
)


def lower_options(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = new_parser(**kwargs)
    add_run(parser)
    parser.add_argument("-o", "--output", required=True, metavar="PROGRAM", help="file to write")
    parser.add_argument("--fixed", action="store_true", help="quantise to Loihi's integers")
    parser.add_argument(
        "--residual",
        choices=["relay", "unrolled"],
        default="relay",
        help="sum the residual stream in graded relays, or repeat synapses per reader (relay)",
    )
    parser.add_argument(
        "--scores",
        choices=["relay", "rows"],
        default="relay",
        help="of a top-k router: graded relays, or rows of integer differences, for chips without "
        "graded spikes; rows need --fixed (relay)",
    )
    parser.add_argument(
        "--input",
        choices=["graded", "binary"],
        default="graded",
        help="how images enter: as numbers, or, if they are 0 and 1, as spikes of one bit (graded)",
    )
    add_head(parser)
    add_time_steps(parser)
    return parser


def quantise_options(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = new_parser(**kwargs)
    add_run(parser)
    parser.add_argument("-o", "--output", required=True, metavar="PROGRAM", help="file to write")
    parser.add_argument("--weight-bits", type=int, default=8, help="of a weight, 2 to 8 (8)")
    parser.add_argument(
        "--residual", choices=["relay", "unrolled"], default="relay", help="as for lower (relay)"
    )
    add_head(parser)
    parser.add_argument(
        "--calibration",
        type=int,
        default=256,
        help="training images whose spikes weigh the weights' errors; 0: none (256)",
    )
    parser.add_argument(
        "--epochs",
        type=int,
        default=0,
        help="of quantisation-aware training, through the integer network itself (0)",
    )
    parser.add_argument("--batch-size", type=int, default=64, help="images per step (64)")
    parser.add_argument("--learning-rate", type=float, default=3e-4, help="at first (3e-4)")
    parser.add_argument(
        "--distillation",
        type=float,
        default=0.5,
        help="share of the loss that compares with the trained model, 0 to 1 (0.5)",
    )
    parser.add_argument(
        "--headroom", type=float, default=1.5, help="how much sums may grow while tuning (1.5)"
    )
    parser.add_argument(
        "--train-samples", type=int, default=0, help="training images per epoch; 0: all (0)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order of images (0)")
    parser.add_argument(
        "--resume", action="store_true", help="go on with a tuning behind its last whole epoch"
    )
    add_data_dir(parser)
    parser.add_argument(
        "--images", type=int, default=None, help="test images for the accuracies (all)"
    )
    parser.add_argument(
        "--check", type=int, default=64, help="test images compared with the reference (64)"
    )
    add_out(parser, "beside PROGRAM: PROGRAM.quantise")
    return parser


def simulate_options(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = new_parser(**kwargs)
    parser.add_argument("program", metavar="PROGRAM", help="file that `spikingmoe lower` wrote")
    parser.add_argument(
        "--backend",
        default="lava",
        help="reference, lava (fused processes), lava-stock, stream, loihi, or sanafe (lava)",
    )
    parser.add_argument(
        "--arithmetic", type=str, default=None, help="float or fixed (the program's)"
    )
    parser.add_argument("--data", type=str, default=None, help="data set (the program's)")
    add_data_dir(parser)
    add_samples(parser, 64, "test images, the first ones")
    add_out(parser, "beside PROGRAM: PROGRAM.simulate")
    return parser


def verify_options(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = new_parser(**kwargs)
    add_run(parser)
    add_data_dir(parser)
    add_images(parser)
    add_samples(parser, 64)
    add_twins(parser)
    add_time_steps(parser)
    add_out(parser, "RUN/verify")
    return parser


def energy_options(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = new_parser(**kwargs)
    add_run(parser)
    add_data_dir(parser)
    add_images(parser)
    parser.add_argument(
        "--costs",
        default="horowitz45",
        help="cost tables, a list with commas: horowitz45, horowitz45-int, loihi1, loihi1-fitted, lemaire, yan, or a "
        "YAML file of your own (horowitz45)",
    )
    add_twins(parser)
    add_time_steps(parser)
    add_out(parser, "RUN/energy")
    return parser


def map_options(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = new_parser(**kwargs)
    parser.add_argument("program", metavar="PROGRAM", help="file that `spikingmoe lower` wrote")
    parser.add_argument("--chip", default="loihi2", help="loihi1 or loihi2 (loihi2)")
    parser.add_argument(
        "--rate",
        type=float,
        default=None,
        help="take neurons to spike so often per step, instead of running test images",
    )
    parser.add_argument("--data", type=str, default=None, help="data set (the program's)")
    add_data_dir(parser)
    parser.add_argument(
        "--samples", type=int, default=4, help="test images whose spikes are the traffic (4)"
    )
    parser.add_argument(
        "--pack",
        type=bool,
        default=True,
        help="let populations share cores; false: a core for each part, as Intel's compiler shows (true)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the placement (0)")
    add_out(parser, "beside PROGRAM: PROGRAM.map")
    return parser


def nir_options(**kwargs: object) -> jsonargparse.ArgumentParser:
    parser = new_parser(**kwargs)
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a program, or a NIR file (ending in .nir) of any framework",
    )
    parser.add_argument(
        "-o", "--output", required=True, metavar="TARGET", help="a NIR file, or a program"
    )
    parser.add_argument(
        "--time-steps", type=int, default=None, help="steps that a sample lasts (our files say it)"
    )
    parser.add_argument(
        "--dt",
        type=float,
        default=None,
        help="seconds per step (the file's own, or 1e-4 as snnTorch has it; Norse: 1e-3)",
    )
    parser.add_argument(
        "--input-limit",
        type=float,
        default=1.0,
        help="largest magnitude of the input, for fixed point (1.0; our files say it)",
    )
    return parser
