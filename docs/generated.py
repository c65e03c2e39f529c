"""Pages that are written anew at each build, so that they cannot go stale: the API and the commands."""

from __future__ import annotations

import argparse
from pathlib import Path

#: The public modules, by chapter. What a package's `__init__` offers is documented there.
API: dict[str, tuple[str, ...]] = {
    "Models and layers": (
        "spikingmoe",
        "spikingmoe.model",
        "spikingmoe.sequential",
        "spikingmoe.config.model",
        "spikingmoe.config.train",
        "spikingmoe.config.twins",
        "spikingmoe.layers.moe",
        "spikingmoe.layers.router",
        "spikingmoe.layers.gates",
        "spikingmoe.layers.prompt",
        "spikingmoe.layers.attention",
        "spikingmoe.layers.mixing",
        "spikingmoe.layers.expert",
        "spikingmoe.layers.neuron",
        "spikingmoe.functional.surrogate",
        "spikingmoe.functional.routing.balance",
    ),
    "Data": ("spikingmoe.data", "spikingmoe.data.image_data", "spikingmoe.data.event_frames"),
    "Training": (
        "spikingmoe.train.fit",
        "spikingmoe.train.checkpoint",
        "spikingmoe.train.reporting",
        "spikingmoe.train.muon",
        "spikingmoe.train.operations",
        "spikingmoe.train.penalty",
        "spikingmoe.train.averaging",
        "spikingmoe.train.quantised",
    ),
    "Reading a network": (
        "spikingmoe.analysis.reading",
        "spikingmoe.analysis.measures",
        "spikingmoe.analysis.effects",
        "spikingmoe.analysis.lesion",
        "spikingmoe.analysis.firing",
    ),
    "The graph": (
        "hardware.ir.graph",
        "hardware.ir.nodes",
        "hardware.ir.synapses",
        "hardware.ir.arithmetic",
        "hardware.ir.reference",
        "hardware.ir.stream",
        "hardware.trace",
        "hardware.verify",
        "hardware.simulate",
        "hardware.early_exit",
        "hardware.errors",
    ),
    "Lowering and quantising": (
        "hardware.lowering.from_torch",
        "hardware.lowering.rules",
        "hardware.lowering.agreement",
        "hardware.lowering.integer.network",
        "hardware.lowering.integer.trainable",
        "hardware.passes.quantise",
        "hardware.passes.plan",
        "hardware.passes.bounds",
        "hardware.passes.gating",
        "hardware.passes.pool_tokens",
    ),
    "Backends": (
        "hardware.lava.run",
        "hardware.lava.settings",
        "hardware.lava.loihi",
        "hardware.sanafe.run",
        "hardware.nir",
    ),
    "Energy and mapping": (
        "hardware.energy.counts",
        "hardware.energy.operations",
        "hardware.energy.costs",
        "hardware.energy.report",
        "hardware.loihi.mapping",
        "hardware.loihi.chips",
    ),
}


def write_api(folder: Path) -> None:
    """One page per chapter, and their index."""
    folder.mkdir(exist_ok=True)
    names = []
    for title, modules in API.items():
        name = title.lower().replace(" ", "-")
        names.append(name)
        lines = [title, "=" * len(title), ""]
        for module in modules:
            lines += [module, "-" * len(module), "", f".. automodule:: {module}", ""]
        _write(folder / f"{name}.rst", lines)
    lines = [
        "API",
        "===",
        "",
        "From the docstrings. Axes: :mod:`spikingmoe.shapes` says what letters mean.",
        "",
    ]
    lines += [".. toctree::", "   :maxdepth: 2", "", *(f"   {name}" for name in names)]
    _write(folder / "index.rst", lines)


def write_commands(path: Path) -> None:
    """Every command with the help that it prints."""
    from spikingmoe.cli.options import COMMANDS, PARSERS

    lines = ["# Commands", "", "What `spikingmoe COMMAND --help` prints.", ""]
    for name, about in COMMANDS.items():
        parser = PARSERS[name](
            prog=f"spikingmoe {name}", description=f"{about}.", formatter_class=_Wide
        )
        lines += [
            f"## {name}",
            "",
            f"{about}.",
            "",
            "```text",
            parser.format_help().rstrip(),
            "```",
            "",
        ]
    _write(path, lines)


class _Wide(argparse.HelpFormatter):
    """Help of one width, however wide the terminal is that builds the site."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=96)


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
