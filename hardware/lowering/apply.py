"""Asks the rule of a module to lower it, and looks at what the rule did.

A rule reads a module's weights and adds populations and synapses to the builder:

    rule(builder, module, path, arriving) -> what leaves

`path` is the module's dotted name in the model, which populations and errors are named after. `arriving` is
the stream of currents, or the spikes, that the module gets. A layer's rule returns what it gives: a
`Stream` or `Spikes`. The rule of a branch, which a block adds to its stream, adds its output to `arriving` by
`builder.stream_term` (and a bias by `stream.bias`), and returns the name of the population that reads
the stream where later blocks want it (the place of an MLP or a mixture), else None.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from hardware.errors import HardwareError, LoweringError
from hardware.ir.synapses import Conv2d, Dense, Sparse
from hardware.lowering.builder import Builder, Spikes, Stream


def apply_layer(
    builder: Builder, module: nn.Module, path: str, arriving: Stream | Spikes
) -> Stream | Spikes:
    """What leaves a layer of the network.

    Raises:
        LoweringError: the module has no rule, or the rule fails or returns something else.
    """
    leaving = _apply(builder, module, path, arriving)
    if not isinstance(leaving, (Stream, Spikes)):
        raise LoweringError(
            path, f"{_the_rule(module)} returned {leaving!r}; a layer gives a Stream or Spikes"
        )
    if isinstance(leaving, Spikes):
        _check_population(builder, module, path, leaving.population)
    return leaving


def apply_branch(builder: Builder, module: nn.Module, path: str, stream: Stream) -> str | None:
    """Add a branch to the stream; the population through which it reads the stream, if it says so.

    Raises:
        LoweringError: the module has no rule, or the rule fails, adds nothing or returns something else.
    """
    terms, bias = list(stream.terms), stream.bias
    reader = _apply(builder, module, path, stream)
    if reader is not None and not isinstance(reader, str):
        raise LoweringError(
            path,
            f"{_the_rule(module)} returned {reader!r}; a branch gives the name of the population that "
            f"reads the stream, or None",
        )
    if reader is not None:
        _check_population(builder, module, path, reader)
    if stream.terms == terms and np.array_equal(stream.bias, bias):
        raise LoweringError(
            path, f"{_the_rule(module)} added nothing to the stream; call builder.stream_term"
        )
    for term in (t for t in stream.terms if t not in terms):
        made = term("target") if callable(term) else term
        if not callable(term) or not isinstance(made, (Dense, Conv2d, Sparse)):
            raise LoweringError(
                path,
                f"{_the_rule(module)} added {type(made).__name__} as a term of the stream; a term is a "
                f"function of the target's name that gives a synapse",
            )
    if stream.bias.shape != stream.shape[-1:]:
        raise LoweringError(
            path,
            f"{_the_rule(module)} left a bias of shape {stream.bias.shape}; the stream has "
            f"{stream.shape[-1]} channels",
        )
    return reader


def _apply(builder: Builder, module: nn.Module, path: str, arriving: Any) -> Any:
    rule = builder.rules.get(type(module))
    if rule is None:
        known = ", ".join(sorted(kind.__name__ for kind in builder.rules))
        name = type(module).__name__
        raise LoweringError(
            path,
            f"no rule for {name}; there are rules for {known}, or give yours: rules={{{name}: rule}}",
        )
    try:
        return rule(builder, module, path, arriving)
    except HardwareError:
        raise
    except Exception as error:
        raise LoweringError(
            path, f"{_the_rule(module)} failed: {type(error).__name__}: {error}"
        ) from error


def _the_rule(module: nn.Module) -> str:
    return f"the rule for {type(module).__name__}"


def _check_population(builder: Builder, module: nn.Module, path: str, name: str) -> None:
    if name not in builder.populations:
        raise LoweringError(path, f"{_the_rule(module)} returned '{name}', which is no population")
