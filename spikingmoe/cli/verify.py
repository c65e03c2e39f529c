"""`spikingmoe verify`."""

from __future__ import annotations

from jsonargparse import Namespace

from hardware.lowering import lower
from hardware.verify import Comparison
from spikingmoe.cli.chain import (
    Clock,
    check_time_limit,
    model_name,
    open_data,
    open_run,
    output_folder,
    test_images,
)
from spikingmoe.cli.comparison import Verified, accuracies, verify_run
from spikingmoe.cli.console import percent, say, show_table
from spikingmoe.cli.fewer_steps import open_twins, test_in_steps, with_time_steps
from spikingmoe.cli.metrics import base_metrics, energy_metrics, latency_metrics, write_metrics
from spikingmoe.cli.twins import chosen_twins, tables_for


def run(args: Namespace) -> int:
    """Compare torch, the reference and Lava; exit code 1 if anything differs."""
    check_time_limit(args.time_limit)
    twin_names = chosen_twins(args.twins)
    as_trained = open_run(args.run)
    trained = with_time_steps(as_trained, args.time_steps)
    lower(trained.model)  # refuses what cannot be lowered before twins are trained
    whole = open_data(as_trained, args)
    data = test_in_steps(whole, as_trained, trained)
    split = test_images(data, args.images)
    split.first(args.samples)  # refuses a wrong number before anything runs
    out = output_folder(args.out, trained.folder / "verify")
    clock = Clock()
    with clock.stage("twins"):
        twins = open_twins(as_trained, trained, whole, make=twin_names)
    verified = verify_run(trained, split, clock, samples=args.samples, time_limit=args.time_limit)
    with clock.stage("energy"):
        energy = energy_metrics(
            {model_name(trained): trained, **twins},
            split,
            tables_for(twins),
            verified.counts,
        )
    accuracy = accuracies(verified, split, args.samples)
    show_verification(verified)
    show_table(
        f"accuracy on the same {args.samples} images",
        ["", "value"],
        [
            [name.replace("_", " "), percent(float(str(accuracy[name])))]
            for name in ("torch", "lava_float", "lava_fixed")
        ],
    )
    metrics = {
        **base_metrics("verify", trained),
        "accuracy": accuracy,
        "verify": verified.metrics(),
        **energy,
        "latency_steps": latency_metrics(verified.graph),
        "seconds": clock.seconds,
    }
    say(f"metrics: {write_metrics(out, metrics)}")
    return 0 if verified.same else 1


def show_verification(verified: Verified) -> None:
    """The table of the comparisons, and float32 beside it."""
    show_table(
        "spike for spike",
        [
            "compared",
            "images",
            "spikes",
            "differ",
            "predictions",
            "logits",
            "same",
            "first divergence",
        ],
        [_row(c) for c in verified.comparisons],
    )
    rounding = verified.rounding
    margin = "-" if rounding.largest_margin is None else f"{rounding.largest_margin:.1e}"
    say(
        f"float32 torch, beside it: {rounding.images_diverged} of {rounding.samples} images diverge; "
        f"largest distance from the threshold where they begin to: {margin} "
        f"({'within' if rounding.within_contract else 'OUTSIDE'} the contract: 1 %, 1e-5)"
    )


def _row(comparison: Comparison) -> list[str]:
    return [
        f"{comparison.left} / {comparison.right}, {comparison.arithmetic}",
        str(comparison.samples),
        f"{comparison.compared:,}",
        f"{comparison.differing:,}",
        str(comparison.predictions_differ),
        f"{comparison.logits_max_difference:.1e}",
        "yes" if comparison.same else "NO",
        str(comparison.first or "none"),
    ]
