"""Numbers in words and units, and safe look-ups in metrics of which any part may be missing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

UNKNOWN = "-"
LARGEST = 1e30
BACKENDS = {
    "torch": "torch",
    "lava_float": "Lava floating point",
    "lava_fixed": "Lava fixed point",
    "reference_float": "reference floating point",
    "reference_fixed": "reference fixed point",
}
PAIRS = {
    "torch": "torch (float64) and reference",
    "float": "reference and Lava, floating point",
    "fixed": "reference and Lava, fixed point",
}
MODELS = {
    "moe": "mixture",
    "dense": "dense twin",
    "relu": "ReLU twin",
    "dense_params": "dense twin, equal parameters",
    "dense_synops": "dense twin, equal operations",
    "quantised_relu": "quantised twin",
}


def look(values: object, *keys: str) -> Any:
    """`values[key][key]...`, or None as soon as something is missing."""
    for key in keys:
        if not isinstance(values, Mapping):
            return None
        values = values.get(key)
    return values


def mapping(values: object, *keys: str) -> dict[str, Any]:
    """Like `look`, for a dictionary: an empty one if there is none."""
    found = look(values, *keys)
    return dict(found) if isinstance(found, Mapping) else {}


def sequence(value: object) -> list[Any]:
    """A list's items; an empty list for anything else."""
    return list(value) if isinstance(value, list | tuple) else []


def number(value: object) -> float | None:
    """A finite number, or None; what exceeds `LARGEST` is taken for rubbish."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if -LARGEST <= value <= LARGEST else None


def percent(value: object) -> str:
    """0.984 -> '98.4 %'."""
    x = number(value)
    return UNKNOWN if x is None else f"{100 * x:.1f} %"


def count(value: object) -> str:
    """1234567.8 -> '1,234,568'; below 100 two decimals, where there are any."""
    x = number(value)
    if x is None:
        return UNKNOWN
    return f"{x:,.0f}" if x == round(x) or abs(x) >= 100 else f"{x:,.2f}"


def energy(value_pj: object, *, like_pj: float | None = None) -> str:
    """Picojoules in the unit that suits them (or suits `like_pj`): 696595 -> '0.697 µJ'."""
    x = number(value_pj)
    if x is None:
        return UNKNOWN
    suits = abs(x if like_pj is None else like_pj)
    for size, unit in ((1e9, "mJ"), (1e6, "µJ"), (1e3, "nJ"), (1.0, "pJ")):
        if suits >= 0.1 * size or size == 1.0:
            return f"{_three_digits(x / size)} {unit}"
    return UNKNOWN


def _three_digits(x: float) -> str:
    if abs(x) >= 1000:
        return f"{x:,.0f}"
    return f"{x:#.3g}".rstrip(".") if abs(x) >= 0.01 else f"{x:.2g}"


def seconds(value: object) -> str:
    """Seconds with as many decimals as they deserve."""
    x = number(value)
    return UNKNOWN if x is None else f"{x:.1f} s" if x >= 10 else f"{x:.2f} s"


def plain(value: object) -> str:
    """Anything, short."""
    if isinstance(value, list | tuple):
        return ", ".join(plain(v) for v in value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return UNKNOWN if value is None else str(value)


def label(name: str, names: Mapping[str, str]) -> str:
    """The name to be read by people."""
    return names.get(name, str(name).replace("_", " "))


def band(value: object) -> tuple[float, float, float] | None:
    """(value, low, high) of a number or of {value, low, high}."""
    if (x := number(value)) is not None:
        return x, x, x
    parts = [number(look(value, key)) for key in ("value", "low", "high")]
    if parts[0] is None:
        return None
    low, high = (parts[0] if p is None else p for p in parts[1:])
    return parts[0], low, high


def interval(share: float, samples: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share counted on `samples` samples (Wilson 1927)."""
    z, n = 1.96, samples
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(centre - half, 0.0), min(centre + half, 1.0)
