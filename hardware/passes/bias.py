"""Biases as integers: what fits in the bias field stays there, a large one is split exactly."""

from __future__ import annotations

import numpy as np

from hardware.errors import GraphError
from hardware.ir.nodes import LIF, LOGIC_ROLES, Population
from hardware.ir.synapses import Sparse
from hardware.ir.validate import MAX_BIAS
from hardware.passes.grid import WeightGrid, to_integers


def check_logic(population: LIF, scale: float) -> None:
    """GraphError if a population that computes with 0 and 1 would lose something by rounding."""
    for what in ("threshold", "bias"):
        values = getattr(population, what) * scale
        if population.role in LOGIC_ROLES and not np.array_equal(values, np.rint(values)):
            raise GraphError(
                f"population '{population.name}': a population with role '{population.role}' "
                f"needs a {what} that is a multiple of {1 / scale}"
            )


def split_bias(population: LIF, scale: float, constant: str) -> tuple[np.ndarray, Sparse | None]:
    """The integer bias, and a synapse from the constant input for the coarse part of a large one."""
    if population.role == "comparator":  # the bias only decides ties: one unit does
        return np.asarray(population.bias > 0, dtype=np.int32), None
    bias = to_integers(population.bias * scale)
    if np.abs(bias).max() <= MAX_BIAS:
        return bias, None
    bias = np.broadcast_to(bias, population.shape).ravel()
    exponent = WeightGrid().exponent(bias.astype(np.float64))
    # Toward zero: until the constant's first message arrives the rest acts alone, and must not fire.
    mantissa = 2 * np.trunc(bias / 2.0 ** (exponent + 1)).astype(np.int32)
    rest = bias - (mantissa.astype(np.int64) << max(exponent, 0))
    if exponent < 0 or np.abs(rest).max() > MAX_BIAS:
        raise GraphError(f"population '{population.name}': bias {np.abs(bias).max()} is too large")
    rows = np.flatnonzero(mantissa)
    synapse = Sparse(
        source=constant,
        target=population.name,
        rows=rows,
        columns=np.zeros_like(rows),
        weight=mantissa[rows],
        exponent=exponent,
    )
    return rest.reshape(population.shape).astype(np.int32), synapse


def largest_bias(population: Population) -> float:
    """Largest bias that takes part in the sum, in real units (a comparator's only decides ties)."""
    if isinstance(population, LIF) and population.role != "comparator":
        return float(np.abs(population.bias).max())
    return 0.0
