"""The rules that populations and synapses must keep; every refusal names the one that breaks it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hardware.errors import GraphError
from hardware.ir.nodes import LIF, Input, Population, Readout, Relay, size
from hardware.ir.synapses import AnySynapse, Conv2d, Dense, Sparse, conv_output_shape

MAX_THRESHOLD = 2**17 - 1  # Loihi's vth field, unsigned 17 bits
MAX_BIAS = 2**12 - 1  # Loihi's bias mantissa, signed 13 bits, kept symmetric
MIN_WEIGHT, MAX_WEIGHT = -256, 254  # 8-bit mixed-sign weights are even
EXPONENTS = range(-8, 8)
MAX_NEURONS = 2**31 - 1
MAX_AXES = 8
MAX_DELAY = 4096


def check_population(population: Population, arithmetic: str, time_steps: int) -> None:
    """Raise GraphError unless the population's fields are in range and of the right shape."""
    where = f"population '{population.name}'"
    if not isinstance(population, (Input, LIF, Relay, Readout)):
        raise GraphError(
            f"{where} is a {type(population).__name__}; use Input, LIF, Relay or Readout"
        )
    if (
        not isinstance(population.name, str)
        or not population.name.isprintable()
        or not population.name
    ):
        raise GraphError(f"{where}: a name must be a printable string that is not empty")
    shape = population.shape
    if (
        not isinstance(shape, tuple)
        or not 1 <= len(shape) <= MAX_AXES
        or any(type(n) is not int or n < 1 for n in shape)
        or size(population) > MAX_NEURONS
    ):
        raise GraphError(
            f"{where}: shape {shape} must be 1 to {MAX_AXES} positive integers, "
            f"{MAX_NEURONS} neurons at most"
        )
    if not (np.isfinite(population.scale) and population.scale > 0):
        raise GraphError(f"{where}: scale {population.scale} must be a positive number")
    if isinstance(population, Input):
        _check_input(population, where, time_steps)
    if isinstance(population, LIF):
        _check_lif(population, where, arithmetic)
    if isinstance(population, Readout):
        _check_values(where, "bias", population.bias, shape, arithmetic)


def _check_input(population: Input, where: str, time_steps: int) -> None:
    if population.kind not in ("graded", "binary", "constant", "clock"):
        raise GraphError(
            f"{where}: kind {population.kind!r}; use graded, binary, constant or clock"
        )
    if type(population.bits) is not int or not 2 <= population.bits <= 24:
        raise GraphError(f"{where}: bits={population.bits}; a graded input has 2 to 24 bits")
    if not (np.isfinite(population.limit) and population.limit > 0):
        raise GraphError(f"{where}: limit {population.limit} must be a positive number")
    step = population.clock_step
    if type(step) is not int or not 0 <= step < time_steps:
        raise GraphError(f"{where}: clock_step {step!r} must lie in 0..{time_steps - 1}")


def _check_lif(population: LIF, where: str, arithmetic: str) -> None:
    if not 0.0 <= population.membrane_decay <= 1.0:
        raise GraphError(f"{where}: membrane_decay {population.membrane_decay} must lie in [0, 1]")
    _check_values(where, "threshold", population.threshold, population.shape, arithmetic)
    _check_values(where, "bias", population.bias, population.shape, arithmetic)
    threshold, bias = np.asarray(population.threshold), np.asarray(population.bias)
    if threshold.min() < 0:
        raise GraphError(
            f"{where}: threshold {threshold.min()} must not be negative, or silence spikes"
        )
    if arithmetic == "fixed":
        if not float(population.membrane_decay * 4096).is_integer():
            raise GraphError(
                f"{where}: membrane_decay {population.membrane_decay} is no multiple of 1/4096"
            )
        if threshold.max() > MAX_THRESHOLD:
            raise GraphError(f"{where}: thresholds must lie in 0..{MAX_THRESHOLD}")
        if bias.min() < -MAX_BIAS or bias.max() > MAX_BIAS:
            raise GraphError(f"{where}: biases must lie in -{MAX_BIAS}..{MAX_BIAS}")


def _check_values(
    where: str, what: str, values: np.ndarray, shape: tuple[int, ...], arithmetic: str
) -> None:
    if not isinstance(values, np.ndarray):
        raise GraphError(f"{where}: {what} is a {type(values).__name__}; use a NumPy array")
    if values.shape not in ((), shape):
        raise GraphError(f"{where}: {what} has shape {values.shape}; use () or {shape}")
    _check_numbers(where, what, values, arithmetic)


def _check_numbers(where: str, what: str, values: np.ndarray, arithmetic: str) -> None:
    if arithmetic == "fixed" and values.dtype.kind != "i":
        raise GraphError(f"{where}: {what} is {values.dtype}; a fixed-point graph needs integers")
    if values.dtype.kind not in "if" or not np.isfinite(values).all():
        raise GraphError(f"{where}: {what} must be finite numbers, got {values.dtype}")


def check_synapse(
    synapse: AnySynapse, populations: Mapping[str, Population], arithmetic: str
) -> None:
    """Raise GraphError unless both ends exist, shapes fit and the weights can be stored."""
    where = f"synapse '{synapse.source}' -> '{synapse.target}'"
    if not isinstance(synapse, (Dense, Conv2d, Sparse)):
        raise GraphError(f"{where} is a {type(synapse).__name__}; use Dense, Conv2d or Sparse")
    for end in (synapse.source, synapse.target):
        if end not in populations:
            raise GraphError(f"{where}: there is no population '{end}'")
    source, target = populations[synapse.source], populations[synapse.target]
    if isinstance(target, Input):
        raise GraphError(f"{where}: an Input cannot receive synapses")
    if isinstance(source, Readout):
        raise GraphError(f"{where}: a Readout sends nothing")
    if type(synapse.delay) is not int or not 1 <= synapse.delay <= MAX_DELAY:
        raise GraphError(f"{where}: delay {synapse.delay!r} must be an integer in 1..{MAX_DELAY}")
    if not isinstance(synapse.weight, np.ndarray):
        raise GraphError(f"{where}: weight is a {type(synapse.weight).__name__}; use a NumPy array")
    if synapse.expert is not None and not _is_expert(synapse.expert):
        raise GraphError(f"{where}: expert {synapse.expert!r}; use (name of the router, index)")
    _check_numbers(where, "weight", synapse.weight, arithmetic)
    _check_wiring(synapse, source, target, where)
    if arithmetic == "float" and synapse.exponent != 0:
        raise GraphError(f"{where}: exponent {synapse.exponent} in a floating-point graph; use 0")
    if arithmetic == "fixed":
        if type(synapse.exponent) is not int or synapse.exponent not in EXPONENTS:
            raise GraphError(f"{where}: exponent {synapse.exponent!r} must lie in -8..7")
        weight = synapse.weight
        if weight.size and (
            weight.min() < MIN_WEIGHT or weight.max() > MAX_WEIGHT or (weight % 2).any()
        ):
            raise GraphError(
                f"{where}: weights must be even integers in {MIN_WEIGHT}..{MAX_WEIGHT}"
            )


def _is_expert(value: object) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and type(value[0]) is str
        and type(value[1]) is int
        and value[1] >= 0
    )


def _check_wiring(synapse: AnySynapse, source: Population, target: Population, where: str) -> None:
    n_source, n_target = size(source), size(target)
    if isinstance(synapse, Dense):
        if synapse.weight.shape != (n_target, n_source):
            raise GraphError(
                f"{where}: weight has shape {synapse.weight.shape}; needs ({n_target}, {n_source})"
            )
    elif isinstance(synapse, Sparse):
        rows, columns = synapse.rows, synapse.columns
        if not (rows.ndim == 1 and rows.shape == columns.shape == synapse.weight.shape):
            raise GraphError(f"{where}: rows, columns and weight must be vectors of one length")
        if rows.dtype.kind != "i" or columns.dtype.kind != "i":
            raise GraphError(f"{where}: rows and columns must be integers")
        if rows.size and not (rows.min() >= 0 and rows.max() < n_target):
            raise GraphError(f"{where}: rows must lie in 0..{n_target - 1}")
        if columns.size and not (columns.min() >= 0 and columns.max() < n_source):
            raise GraphError(f"{where}: columns must lie in 0..{n_source - 1}")
        if len(np.unique(rows.astype(np.int64) * n_source + columns)) < rows.size:
            raise GraphError(f"{where}: a pair of neurons is listed twice")
    else:
        _check_conv(synapse, source, target, where)


def _check_conv(synapse: Conv2d, source: Population, target: Population, where: str) -> None:
    if synapse.weight.ndim != 4 or len(source.shape) != 3:
        raise GraphError(f"{where}: a convolution needs a 4-D weight and a source (H, W, C)")
    pairs = (synapse.stride, synapse.padding, synapse.dilation)
    if any(not isinstance(p, tuple) or len(p) != 2 for p in pairs) or any(
        type(n) is not int
        for n in (*synapse.stride, *synapse.padding, *synapse.dilation, synapse.groups)
    ):
        raise GraphError(
            f"{where}: stride, padding and dilation are pairs of integers, groups is one"
        )
    if min(synapse.weight.shape) < 1:
        raise GraphError(f"{where}: a kernel of shape {synapse.weight.shape} is empty")
    if min(*synapse.stride, *synapse.dilation, synapse.groups) < 1 or min(synapse.padding) < 0:
        raise GraphError(f"{where}: stride, dilation and groups start at 1, padding at 0")
    channels_out, per_group = synapse.weight.shape[:2]
    if source.shape[2] != per_group * synapse.groups or channels_out % synapse.groups:
        raise GraphError(
            f"{where}: weight {synapse.weight.shape} with groups={synapse.groups} does not fit "
            f"{source.shape[2]} source channels"
        )
    expected = conv_output_shape(source.shape, synapse)
    if expected != target.shape:
        raise GraphError(
            f"{where}: the convolution gives {expected}, the target has {target.shape}"
        )
