"""`spikingmoe lower`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from jsonargparse import Namespace

from hardware.errors import FileError
from hardware.ir.fan_out import count_synapses
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import size
from hardware.lowering import lower
from hardware.passes.pool_tokens import pool_tokens
from hardware.passes.quantise import quantise
from hardware.passes.scores_to_rows import scores_to_rows
from spikingmoe.cli.chain import open_run
from spikingmoe.cli.console import number, say, show_table
from spikingmoe.cli.fewer_steps import with_time_steps


def run(args: Namespace) -> int:
    """Write a program and say what is in it."""
    if Path(args.output).is_dir():
        raise FileError(
            f"{args.output}: is a folder; name a file, such as {args.output}/digits.program"
        )
    if args.scores == "rows" and not args.fixed:
        raise ValueError(
            "scores=rows compares integers, which only --fixed makes; add it, or use --scores relay"
        )
    if args.scores == "rows" and args.head == "pooled":
        raise ValueError(
            "head=pooled sends graded sums, and scores=rows is for chips without graded spikes; use one of them"
        )
    trained = with_time_steps(open_run(args.run), args.time_steps)
    graph = lower(trained.model, residual=args.residual, input=args.input)
    graph = replace(graph, notes={**graph.notes, "data": trained.train_config.data})
    if args.fixed:
        graph = quantise(graph)
    if args.scores == "rows":
        graph = scores_to_rows(graph)
    if args.head == "pooled":
        graph = pool_tokens(graph)
    graph.save(args.output)
    show_table(f"program {args.output}", ["", "value"], program_rows(graph))
    say(f"sha-256 of the content: {graph.fingerprint}")
    return 0


def program_rows(graph: SpikeGraph) -> list[list[str]]:
    """What a program holds, as rows of a table."""
    depth = graph.depth[graph.readout.name]
    return [
        ["arithmetic", graph.arithmetic],
        ["populations", str(len(graph.populations))],
        ["neurons", number(sum(size(p) for p in graph.populations.values()))],
        ["synapse groups", str(len(graph.synapses))],
        ["synapses", number(count_synapses(graph))],
        ["depth (steps)", str(depth)],
        ["latency of one sample (depth + T)", f"{depth} + {graph.time_steps}"],
    ]
