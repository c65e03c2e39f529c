"""`spikingmoe map`."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import Namespace

from hardware.files import write_bytes
from hardware.loihi.chips import get_chip
from hardware.loihi.mapping import LIMIT_NAMES, MappingReport, check_rate, map_graph
from hardware.passes.pipeline import prepare
from hardware.simulate import simulate
from spikingmoe.analysis.chip_picture import chip_png
from spikingmoe.cli.chain import open_program, output_folder, program_data
from spikingmoe.cli.console import number, percent, progress, say, show_table
from spikingmoe.cli.metrics import write_metrics
from spikingmoe.train.checkpoint import package_versions

MOST_ROWS = 12  # populations in the table; all are in metrics.json


def run(args: Namespace) -> int:
    """Lay a program out on a chip, say whether it fits, and draw it."""
    get_chip(args.chip)
    if args.rate is not None:
        check_rate(args.rate)
    if args.samples < 1:
        raise ValueError(f"samples={args.samples}; use at least 1, or --rate for no images at all")
    graph = prepare(open_program(args.program))
    if args.rate is not None:
        trace, words = None, f"{args.rate:g} spikes per neuron and step (assumed)"
    else:
        split = program_data(graph, args).test.first(args.samples)
        words = f"spikes of {len(split)} test images"
        with progress(f"recording {len(split)} images") as update:
            trace = simulate(graph, split.images, progress=update)
    out = output_folder(args.out, Path(f"{args.program}.map"))
    report = map_graph(
        graph,
        args.chip,
        trace=trace,
        rate=0.0 if args.rate is None else args.rate,
        pack=args.pack,
        seed=args.seed,
    )
    show_table(
        f"{args.program} on {report.chip.name} (estimate)",
        ["", "value"],
        _summary(report, words),
    )
    show_table(
        "populations that take most cores", ["population", "cores", "cut by"], _largest(report)
    )
    for problem in report.problems:
        say(f"problem: {problem}")
    for line in report.advice:
        say(f"to fit one chip: {line}")
    write_mapping(report, graph.fingerprint, words, args.program, out)
    say(f"picture: {out / 'chip.png'}")
    say(f"metrics: {out / 'metrics.json'}")
    return 0


def write_mapping(
    report: MappingReport, fingerprint: str, traffic_from: str, program: str, out: Path
) -> dict[str, object]:
    """Write the picture and `metrics.json` of a mapping into `out`; what the latter holds.

    Args:
        fingerprint: of the graph that was mapped.
        traffic_from: whose messages its traffic is, in words.
        program: the file that holds the graph.
    """
    values = report.as_dict()
    metrics = {
        "command": "map",
        "program": program,
        "fingerprint": fingerprint,
        "traffic_from": traffic_from,
        **values,
        "versions": package_versions(),
    }
    write_bytes(out / "chip.png", chip_png(values))
    write_metrics(out, metrics)
    return metrics


def _summary(report: MappingReport, words: str) -> list[list[str]]:
    chip = report.chip
    random = sum(one.hops for one in report.random) / len(report.random)
    use = [
        [f"{LIMIT_NAMES[name]} used per core", f"{percent(mean)} mean, {percent(most)} most"]
        for name, (mean, most) in report.utilisation.items()
    ]
    fits = "yes" if report.fits else "no"
    return [
        ["neurons", number(sum(core.demand.neurons for core in report.partition.cores))],
        ["fits one chip", fits if not report.problems else f"{fits}: see the problems below"],
        ["cores", f"{report.cores} of {chip.cores} per chip"],
        ["chips", str(report.mesh.chips)],
        ["binding limit", LIMIT_NAMES[report.binding]],
        *use,
        ["traffic from", words],
        ["messages per sample", number(round(float(report.traffic.sum())))],
        ["hops per sample, as placed", number(round(report.placed.hops))],
        ["the same, row by row", number(round(report.row_major.hops))],
        ["the same, at random (mean of 10)", number(round(random))],
        ["messages between chips", number(round(report.placed.between_chips))],
    ]


def _largest(report: MappingReport) -> list[list[str]]:
    cores = {name: len(report.cores_of(name)) for name in report.partition.grids}
    order = sorted(cores, key=lambda name: -cores[name])[:MOST_ROWS]
    cut = report.partition.cut_by
    return [
        [name, str(cores[name]), LIMIT_NAMES[cut[name]] if name in cut else ""] for name in order
    ]
