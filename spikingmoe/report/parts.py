"""Energy split by the parts of the network."""

from __future__ import annotations

from typing import Any

from spikingmoe.report.wording import band, look

MOST_EXPERTS = 8


def merged_parts(parts: dict[str, Any]) -> dict[str, tuple[float, float, float]]:
    """Energy bands by part; without parts that cost nothing, and many experts as one."""
    found: dict[str, tuple[float, float, float]] = {}
    many = sum(name.startswith("experts.") for name in parts) > MOST_EXPERTS
    for name, part in parts.items():
        value = band(look(part, "energy_pj_per_sample"))
        if value is None or value[2] == 0:
            continue
        shown = "all experts" if many and name.startswith("experts.") else str(name)
        before = found.get(shown, (0.0, 0.0, 0.0))
        found[shown] = (before[0] + value[0], before[1] + value[1], before[2] + value[2])
    return found
