"""`spikingmoe nir`."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import Namespace

from hardware.errors import FileError
from hardware.ir.graph import SpikeGraph
from hardware.nir import from_nir, read_nir, to_nir, write_nir
from spikingmoe.cli.chain import open_program
from spikingmoe.cli.console import say, show_table
from spikingmoe.cli.lower import program_rows

SUFFIX = ".nir"


def run(args: Namespace) -> int:
    """Turn a program into a NIR file, or a NIR file into a program."""
    source, target = Path(args.source), Path(args.output)
    if target.is_dir():
        raise FileError(f"{target}: is a folder; name a file, such as {target}/model{SUFFIX}")
    if (source.suffix == SUFFIX) == (target.suffix == SUFFIX):
        raise ValueError(
            f"{source} to {target}: exactly one of them must end in {SUFFIX}, the other is a program"
        )
    if source.suffix == SUFFIX:
        graph = from_nir(
            read_nir(source), time_steps=args.time_steps, dt=args.dt, input_limit=args.input_limit
        )
        graph.save(str(target))
        _show(f"program {target}", graph)
        return 0
    graph = open_program(args.source)
    exported = to_nir(graph) if args.dt is None else to_nir(graph, dt=args.dt)
    write_nir(target, exported)
    _show(f"program {source}", graph)
    say(f"{target}: {len(exported.nodes)} NIR nodes, {len(exported.edges)} edges")
    return 0


def _show(title: str, graph: SpikeGraph) -> None:
    show_table(title, ["", "value"], program_rows(graph))
