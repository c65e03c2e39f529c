"""`spikingmoe inspect`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from jsonargparse import Namespace

from hardware.files import write_bytes
from spikingmoe.analysis import Information, LinkReading, MixtureReading, read_mixture
from spikingmoe.analysis.pictures import class_png, load_png, region_png, steps_png
from spikingmoe.analysis.reading import DEAD_SHARE, routers_of
from spikingmoe.cli.chain import open_data, open_run, output_folder
from spikingmoe.cli.console import percent, progress, say, show_table
from spikingmoe.cli.metrics import base_metrics, write_metrics
from spikingmoe.data.image_data import Split
from spikingmoe.train.checkpoint import Run

DEFAULT_SAMPLES = 1000
ALIKE = 1e-9  # shares that differ by less are the same: image-wise gates know no place


def run(args: Namespace) -> int:
    """Who works in the mixtures, for which classes and where: tables, pictures, metrics.json."""
    trained = open_run(args.run)
    refuse_dense(trained)
    data = open_data(trained, args)
    split = choose_images(data.test, args.samples)
    out = output_folder(args.out, trained.folder / "inspect")
    with progress(f"reading {len(split)} test images") as update:
        reading = read_mixture(trained.model, split, progress=update)
    show_reading(reading, args.run, data.classes)
    pictures = {
        "load.png": load_png(reading),
        "classes.png": class_png(reading, data.classes),
        "regions.png": region_png(reading),
        "steps.png": steps_png(reading),
    }
    for name, content in pictures.items():
        write_bytes(out / name, content)
    path = write_metrics(
        out,
        {
            **base_metrics("inspect", trained),
            "data": data.name,
            "samples": reading.samples,
            "accuracy": {"test": {"torch": reading.accuracy, "samples": reading.samples}},
            "classes": list(data.classes),
            "mixtures": [link_metrics(link) for link in reading.links],
            "firing_rates": reading.firing_rates,
            "silent_shares": reading.silent_shares,
            "definitions": DEFINITIONS,
        },
    )
    say(f"pictures: {', '.join(str(out / name) for name in pictures)}")
    say(f"metrics: {path}")
    return 0


DEFINITIONS = {
    "load": "share of all choices per expert",
    "open_rate": "share of (image, step, token) for which the expert's gate is open",
    "load_entropy": "entropy of the load over log(experts): 1 even, 0 one expert alone",
    "routing_entropy": "entropy of the scores' softmax over log(experts), or of their sigmoids over "
    "log(2) where experts decide alone; 0 sure, 1 blind",
    "gate_changes": "of the tokens with an open gate at both of two neighbouring steps, the share "
    "whose experts differ",
    "by_class": "mutual information of class and expert; chance: labels dealt anew to the images",
    "by_region": "mutual information of token and expert; chance: each image's map rolled at random",
    "dead_experts": f"load below {DEAD_SHARE:g} of the even share",
    "expert_rates": "spikes per hidden neuron and step while the expert's gate is open",
    "dead_neurons": "share of the hidden neurons of experts that were open which never spiked",
    "firing_rates": "spikes per neuron and step, closed gates included",
    "silent_shares": "share of a population's neurons that never spiked",
}


def refuse_dense(trained: Run) -> None:
    """ValueError for a run without a router, before any data are loaded."""
    if not routers_of(trained.model):
        raise ValueError(
            f"{trained.path}: has no mixture to read (routing='dense'); "
            "give a run trained with another routing"
        )


def choose_images(split: Split, samples: int | None) -> Split:
    """`samples` of the images, evenly over the classes; by default 1000, or all where there are fewer."""
    if samples is None:
        samples = min(DEFAULT_SAMPLES, len(split))
    if not 1 <= samples <= len(split):
        raise ValueError(
            f"samples={samples}; there are {len(split)} test images, use 1 to {len(split)}"
        )
    return split.subset(samples)


def show_reading(reading: MixtureReading, name: str, classes: Sequence[str]) -> None:
    """Tables: two rows per router, a row per expert, a row per population."""
    say(f"{name}: {percent(reading.accuracy)} right on {reading.samples} test images")
    show_table(
        "routers (entropy: 1 even or blind, 0 one expert alone or sure)",
        ["router", "open gates", "load entropy", "routing entropy", "gates change",
         "dead experts", "dead neurons"],
        [_router_row(link) for link in reading.links],
    )  # fmt: skip
    show_table(
        "what the choice tells, in bits (chance: shuffled; p: as much by chance)",
        ["router", "of the class", "chance", "p", "of the place", "chance", "p", "most possible"],
        [
            [link.name, *_bits(link.by_class), *_bits(link.by_region),
             f"{link.by_class.limit_bits:.3f}"]
            for link in reading.links
        ],
    )  # fmt: skip
    show_table(
        "experts",
        ["expert", "load", "gate open", "firing rate when open", "most of class", "most of place"],
        [row for link in reading.links for row in _expert_rows(link, classes)],
    )
    show_table(
        "firing rates",
        ["population", "spikes per neuron and step", "neurons that never spiked"],
        [
            [name, f"{rate:.4f}", percent(reading.silent_shares[name])]
            for name, rate in reading.firing_rates.items()
        ],
    )


def _router_row(link: LinkReading) -> list[str]:
    return [
        link.name,
        f"{link.mean_open:.2f} of {len(link.load)}",
        f"{link.load_entropy:.3f}",
        f"{link.routing_entropy:.3f}",
        percent(link.mean_change),
        ", ".join(map(str, link.dead_experts)) or "none",
        percent(_finite(link.dead_neurons)),
    ]


def _bits(known: Information) -> list[str]:
    return [f"{known.bits:.3f}", f"{known.chance_bits:.3f}", f"{known.p_value:.2f}"]


def _expert_rows(link: LinkReading, classes: Sequence[str]) -> list[list[str]]:
    rows = []
    for e in range(len(link.load)):
        rate = _finite(link.expert_rates[e])
        rows.append(
            [
                f"{link.name}.experts.{e}",
                percent(link.load[e]),
                percent(link.open_rate[e]),
                "-" if rate is None else f"{rate:.4f}",
                _most(link.class_shares[:, e], lambda at: classes[at[0]]),
                _most(link.region_shares[e], lambda at: f"row {at[0]}, column {at[1]}"),
            ]
        )
    return rows


def _most(values: np.ndarray, name: Callable[[tuple[int, ...]], str]) -> str:
    """Where `values` are largest, and how large; a dash where nothing is, or all are alike."""
    if np.isnan(values).all() or np.nanmax(values) - np.nanmin(values) < ALIKE:
        return "-"
    place = np.unravel_index(int(np.nanargmax(values)), values.shape)
    return f"{name(tuple(int(i) for i in place))}: {100 * float(values[place]):.0f} %"


def link_metrics(link: LinkReading) -> dict[str, object]:
    """A link's part of metrics.json; null where nothing was counted."""
    return {
        "name": link.name,
        "block": link.block,
        "load": link.load.tolist(),
        "open_rate": link.open_rate.tolist(),
        "open_counts": link.open_counts.tolist(),
        "open_per_step": link.open_per_step.tolist(),
        "load_entropy": link.load_entropy,
        "routing_entropy": link.routing_entropy,
        "entropy_per_step": link.entropy_per_step.tolist(),
        "gate_changes": _nested(link.gate_changes),
        "by_class": _information(link.by_class),
        "by_region": _information(link.by_region),
        "class_shares": _nested(link.class_shares),
        "region_shares": _nested(link.region_shares),
        "dead_experts": list(link.dead_experts),
        "expert_rates": _nested(link.expert_rates),
        "dead_neurons": _finite(link.dead_neurons),
    }


def _information(known: Information) -> dict[str, object]:
    return {
        "bits": known.bits,
        "chance_bits": known.chance_bits,
        "limit_bits": known.limit_bits,
        "share_of_limit_beyond_chance": known.share,
        "p_value": known.p_value,
        "shuffles": known.shuffles,
    }


def _nested(values: np.ndarray) -> object:
    """Lists of numbers, None for NaN."""
    return [_nested(part) for part in values] if values.ndim else _finite(values)


def _finite(value: float | np.ndarray) -> float | None:
    return None if math.isnan(value) else float(value)
