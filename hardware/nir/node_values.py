"""The values of a NIR node, checked; every refusal names the node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hardware.errors import NirError


def parameter(
    name: str, node: Mapping[str, Any], key: str, default: float | None = None
) -> np.ndarray:
    """Finite numbers; `default` where the node has none."""
    if node.get(key) is None and default is not None:
        return np.asarray(default)
    try:
        values = np.asarray(node[key], dtype=np.float64)
    except (KeyError, TypeError, ValueError):
        raise NirError(f"node '{name}' ({node['type']}): {key} is missing or no numbers") from None
    if not np.isfinite(values).all():
        raise NirError(f"node '{name}' ({node['type']}): {key} must be finite numbers")
    return values


def check_sizes(name: str, node: Mapping[str, Any], neurons: int) -> None:
    """Neurons' values stand once for all of them, or once for each."""
    kind = node["type"]
    keys = ("threshold",) if kind == "Threshold" else ("v_threshold", "r", "tau", "v_leak")
    sizes = {parameter(name, node, key, 0.0).size for key in keys} - {1}
    if sizes - {neurons}:
        raise NirError(
            f"node '{name}' ({kind}): parameters of {sorted(sizes)} neurons, inputs of {neurons}"
        )


def matrix_of(name: str, node: Mapping[str, Any], sources: int, targets: int) -> np.ndarray:
    """A weight (targets, sources)."""
    weight = parameter(name, node, "weight")
    if weight.shape != (targets, sources):
        raise NirError(
            f"node '{name}': weight has shape {weight.shape}; needs ({targets}, {sources})"
        )
    return weight


def bias_of(name: str, node: Mapping[str, Any]) -> np.ndarray | None:
    """Of an Affine or a Conv2d; None for others."""
    if node["type"] not in ("Affine", "Conv2d"):
        return None
    return parameter(name, node, "bias")


def shape_of(name: str, node: Mapping[str, Any], key: str) -> tuple[int, ...]:
    """NIR's shape of a vector or a map."""
    values = np.asarray(node.get(key)).ravel()
    if values.dtype.kind not in "iu" or len(values) not in (1, 3) or (values < 1).any():
        raise NirError(
            f"node '{name}' ({node['type']}): shape {node.get(key)!r}; needs (n,) or (C, height, width)"
        )
    return tuple(int(v) for v in values)


def pair(name: str, node: Mapping[str, Any], key: str) -> tuple[int, int]:
    """One or two integers as two."""
    values = np.asarray(node.get(key)).ravel()
    if values.dtype.kind not in "iu" or len(values) not in (1, 2):
        raise NirError(
            f"node '{name}' ({node['type']}): {key}={node.get(key)!r}; needs one or two integers"
        )
    return int(values[0]), int(values[-1])


def padding_of(
    name: str,
    node: Mapping[str, Any],
    weight: np.ndarray,
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> tuple[int, int]:
    """Of a Conv2d, words as numbers."""
    given = node.get("padding")
    word = given.decode() if isinstance(given, bytes) else given
    if not isinstance(word, str):
        return pair(name, node, "padding")
    if word == "valid":
        return 0, 0
    if word == "same":
        reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        if stride != (1, 1) or any(r % 2 for r in reach):
            raise NirError(
                f"node '{name}' (Conv2d): padding 'same' needs stride 1 and odd kernels here"
            )
        return reach[0] // 2, reach[1] // 2
    raise NirError(f"node '{name}' (Conv2d): padding {word!r}; needs numbers, 'same' or 'valid'")


def to_ours(values: np.ndarray, shape: tuple[int, ...], order: np.ndarray) -> np.ndarray:
    """Values in NIR's order as an array of our shape; a single one stays single."""
    if values.size == 1:
        return np.asarray(float(values.ravel()[0]))
    found = np.empty(len(order))
    found[order] = values.ravel()
    return found.reshape(shape)
