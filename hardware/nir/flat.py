"""A NIR graph without graphs in it: nodes by name, in an order in which sources come first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hardware.errors import NirError

MOST_NODES = 100_000
DEEPEST = 32


@dataclass(frozen=True)
class Flat:
    """Nodes and connections of a NIR graph.

    Attributes:
        order: names, sources before what they feed; connections back apart.
        before, after: neighbours of each node over forward connections.
        loops: connections back, as (the earlier node, the node that feeds it).
    """

    nodes: dict[str, Mapping[str, Any]]
    order: list[str]
    before: dict[str, list[str]]
    after: dict[str, list[str]]
    loops: list[tuple[str, str]]


def flatten_graph(values: Mapping[str, Any]) -> Flat:
    """Put inner graphs in the place of their nodes, named OUTER.INNER, and order the whole."""
    nodes, edges, _, _ = _inlined(values, "", 0)
    return _ordered(nodes, list(dict.fromkeys(edges)))


Parts = tuple[dict[str, Mapping[str, Any]], list[tuple[str, str]], list[str], list[str]]


def _inlined(values: Mapping[str, Any], prefix: str, level: int) -> Parts:
    """(nodes, edges, names that feed the graph's inside, names that its inside ends in)."""
    if level > DEEPEST:
        raise NirError(f"graphs within graphs, more than {DEEPEST} deep")
    found, given = values.get("nodes"), values.get("edges")
    if not isinstance(found, Mapping) or given is None:
        raise NirError(f"graph '{prefix or 'NIR'}': has no nodes or no edges")
    nodes: dict[str, Mapping[str, Any]] = {}
    edges: list[tuple[str, str]] = []
    inward: dict[str, list[str]] = {}
    outward: dict[str, list[str]] = {}
    starts: list[str] = []
    ends: list[str] = []
    for name, node in found.items():
        full = f"{prefix}{name}"
        if not isinstance(node, Mapping) or "type" not in node:
            raise NirError(f"node '{full}': has no type")
        kind = node["type"].decode() if isinstance(node["type"], bytes) else str(node["type"])
        node = {**node, "type": kind}
        if kind == "NIRGraph":
            inner, links, heads, tails = _inlined(node, f"{full}.", level + 1)
            nodes |= inner
            edges += links
            inward[name], outward[name] = heads, tails
            continue
        if level and kind in ("Input", "Output"):  # of an inner graph: only a way through
            (starts if kind == "Input" else ends).append(name)
            continue
        nodes[full] = node
        inward[name], outward[name] = [full], [full]
    if len(nodes) > MOST_NODES:
        raise NirError(f"more than {MOST_NODES} nodes")
    heads: list[str] = []
    tails: list[str] = []
    for source, target in _pairs(given, prefix):
        for end in (source, target):
            if end not in found:
                raise NirError(f"edge ({source}, {target}): there is no node '{prefix}{end}'")
        if source in starts and target in ends:
            raise NirError(f"graph '{prefix}': passes its input on unchanged; leave it out")
        if source in starts:
            heads += inward[target]
        elif target in ends:
            tails += outward[source]
        elif source in ends or target in starts:
            raise NirError(f"edge ({source}, {target}): leaves an output or enters an input")
        else:
            edges += [(s, t) for s in outward[source] for t in inward[target]]
    return nodes, edges, heads, tails


def _pairs(given: Any, prefix: str) -> list[tuple[str, str]]:
    found = []
    try:
        edges = [list(edge) for edge in given]
    except TypeError:
        raise NirError(f"graph '{prefix or 'NIR'}': edges are no pairs of names") from None
    for edge in edges:
        ends = [e.decode() if isinstance(e, bytes) else str(e) for e in edge]
        if len(ends) != 2:
            raise NirError(f"graph '{prefix or 'NIR'}': an edge with {len(ends)} ends")
        found.append((ends[0], ends[1]))
    return found


def _ordered(nodes: dict[str, Mapping[str, Any]], edges: list[tuple[str, str]]) -> Flat:
    """Depth first from the inputs; an edge to a node that is still open leads back."""
    following: dict[str, list[str]] = {name: [] for name in nodes}
    for source, target in edges:
        following[source].append(target)
    loops: list[tuple[str, str]] = []
    state: dict[str, int] = {}  # 1: open, 2: done
    done: list[str] = []
    inputs = [n for n, node in nodes.items() if node["type"] == "Input"]
    for root in (*inputs, *nodes):
        if root in state:
            continue
        state[root] = 1
        path = [(root, iter(following[root]))]
        while path:
            name, rest = path[-1]
            step = next(rest, None)
            if step is None:
                state[name] = 2
                done.append(name)
                path.pop()
            elif state.get(step) == 1:
                loops.append((step, name))
            elif step not in state:
                state[step] = 1
                path.append((step, iter(following[step])))
    back = set(loops)
    forward = [(s, t) for s, t in edges if (t, s) not in back]
    before: dict[str, list[str]] = {name: [] for name in nodes}
    after: dict[str, list[str]] = {name: [] for name in nodes}
    for source, target in forward:
        before[target].append(source)
        after[source].append(target)
    return Flat(nodes, done[::-1], before, after, loops)
