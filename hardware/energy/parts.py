"""Which part of the network a population of a lowered model belongs to."""

from __future__ import annotations

import re

PARTS = (
    "input", "stem", "prompt", "mixing", "attention", "router", "experts", "mlp", "residual", "head",
)  # fmt: skip


def part_of(name: str) -> str:
    """The part of the network that the population `name` of a lowered model belongs to.

    `input`, `constant` and `clock` are "input"; `stream.*` is "residual"; what halves the map between
    two stages (`downsamples.*`) is "stem". In `blocks.*` the neurons behind the gate of `experts.N` are
    "experts.N" (in every link of a chain); scores, comparators, choices, gates, latches and the ANDs
    that let tokens pass (which every token reaches, chosen or not) are "router"; what remains of `moe`
    (the neurons that read the stream, and shared experts) and all of `mlp` is "mlp"; blocks of a
    `SpikingSequential` (`layers.*`) alike. A name that fits nothing is "other": it is never left out.

    >>> part_of("blocks.0.moe.experts.2.hidden"), part_of("blocks.0.moe.gate"), part_of("stream.1")
    ('experts.2', 'router', 'residual')
    """
    root, *rest = name.split(".")
    if root == "layers" and len(rest) > 1:  # of a SpikingSequential: a block, or another layer
        return "head" if "readout" in rest else part_of(f"blocks.{'.'.join(rest)}")
    if root in ("stem", "prompt", "head"):
        return root
    if root == "downsamples":
        return "stem"
    if root in ("input", "constant", "clock"):
        return "input"
    if root == "stream":
        return "residual"
    if root != "blocks":
        return "other"
    if name.endswith(".gated"):
        return "router"
    if expert := re.search(r"\.moe(?:\.links\.\d+)?\.experts\.(\w+)", name):
        return f"experts.{expert[1]}"
    if re.search(r"\.moe(\.links\.\d+)?\.(score|compare|choice|gate|decided|latch)$", name):
        return "router"
    for segment, part in (
        ("prompt", "prompt"),
        ("mixing", "mixing"),
        ("attention", "attention"),
        ("moe", "mlp"),
        ("mlp", "mlp"),
    ):
        if segment in rest:
            return part
    return "other"


def part_order(part: str) -> tuple[int, int, str]:
    """Sort key: parts in the order of `PARTS`, experts by index, anything else last."""
    root, _, index = part.partition(".")
    place = PARTS.index(root) if root in PARTS else len(PARTS)
    return place, int(index) if index.isdecimal() else -1, part
