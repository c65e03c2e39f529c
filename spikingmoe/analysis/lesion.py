"""Silencing parts of a model while a context is open; weights are never touched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from spikingmoe.analysis.targets import Target, choose_targets
from spikingmoe.functional.routing import expert_load
from spikingmoe.layers.gates import ExpertChoiceGate, Gate, HierarchicalGate, ThresholdGate
from spikingmoe.layers.moe import MixtureOfExperts
from spikingmoe.layers.router import Router, RoutingInfo
from spikingmoe.model import SpikingTransformer


@contextmanager
def lesion(
    model: SpikingTransformer, targets: Sequence[str | Target], *, reroute: bool = False
) -> Iterator[list[Target]]:
    """Silence `targets` of `model` while the context is open; gives the targets.

    A silenced expert's gate is closed: its neurons do not spike, it puts nothing on the stream, and
    the tokens that chose it go without. With `reroute` its score is minus infinity before the choice
    as well, so that they go to the runner-up. Everything is as before when the context closes, also
    after an exception.

    Args:
        targets: names as in `list_targets` (with `*`), or each a `Target`.
        reroute: for single experts; a whole mixture has nobody to go to.

    Raises:
        ValueError: an unknown target, none at all, or a re-routing that is impossible.

    Example:
        >>> from spikingmoe import create_model
        >>> model = create_model("digits").eval()
        >>> with lesion(model, ["blocks.*.moe.experts.2"]) as silenced:
        ...     logits = model(torch.zeros(1, 1, 8, 8)).logits
        >>> [target.name for target in silenced]
        ['blocks.0.moe.experts.2', 'blocks.1.moe.experts.2']
    """
    chosen: dict[str, Target] = {}
    for target in targets:
        known = [target] if isinstance(target, Target) else choose_targets(model, [target])
        chosen |= {one.name: one for one in known}
    if not chosen:
        raise ValueError("lesion: no target; name at least one (see list_targets)")
    silenced = _experts(chosen.values())
    mixtures = {name: _mixture(model, name) for name in silenced}
    rerouted = {n for n, m in mixtures.items() if reroute and not _whole(m, silenced[n])}
    for name in rerouted:
        check_reroute(name, mixtures[name].router.choose, silenced[name])
    with ExitStack() as undo:
        for name, mixture in mixtures.items():
            for router in (m for m in mixture.modules() if isinstance(m, Router)):
                if name in rerouted:
                    undo.callback(_never_choose(router.choose, silenced[name]).remove)
                undo.callback(_close_gates(router, silenced[name]).remove)
        for target in chosen.values():
            for name in target.modules:
                undo.callback(_zero(model.get_submodule(name), slice(None)).remove)
            for name, first, end in target.channels:
                undo.callback(_zero(model.get_submodule(name), slice(first, end)).remove)
        yield list(chosen.values())


def check_reroute(mixture: str, gate: Gate, silenced: Sequence[int]) -> None:
    """ValueError unless the router can choose among the other experts."""
    if isinstance(gate, ThresholdGate | ExpertChoiceGate):
        how = "each expert decides alone" if isinstance(gate, ThresholdGate) else "experts choose"
        raise ValueError(
            f"lesion of {mixture}: {how}, so nothing can be re-routed; leave re-routing out"
        )
    groups = gate.groups if isinstance(gate, HierarchicalGate) else 1
    size = gate.experts // groups
    for group in range(groups):
        left = sum(e not in silenced for e in range(group * size, (group + 1) * size))
        if left < gate.k and (groups == 1 or left > 0):
            place = f"{mixture}, group {group}" if groups > 1 else mixture
            raise ValueError(
                f"lesion of {place}: top_k={gate.k} exceeds the {left} experts that would be left; "
                "silence fewer, or leave re-routing out"
            )


def _experts(targets: Iterable[Target]) -> dict[str, list[int]]:
    """Experts to silence, per mixture."""
    silenced: dict[str, set[int]] = {}
    for target in targets:
        for mixture, expert in target.experts:
            silenced.setdefault(mixture, set()).add(expert)
    return {mixture: sorted(experts) for mixture, experts in silenced.items()}


def _mixture(model: nn.Module, name: str) -> MixtureOfExperts:
    module = model.get_submodule(name)
    assert isinstance(module, MixtureOfExperts)
    return module


def _whole(mixture: MixtureOfExperts, silenced: Sequence[int]) -> bool:
    return len(silenced) == mixture.router.choose.experts


def _never_choose(gate: Gate, experts: Sequence[int]) -> RemovableHandle:
    """Scores of `experts`, and of groups that lost all theirs, are minus infinity."""
    columns = list(experts)
    if isinstance(gate, HierarchicalGate):
        size = gate.experts // gate.groups
        lost = [
            g for g in range(gate.groups) if set(range(g * size, g * size + size)) <= set(experts)
        ]
        columns = [*lost, *(gate.groups + e for e in experts)]

    def hook(_gate: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        scores = inputs[0].clone()
        scores[..., columns] = float("-inf")
        return (scores, *inputs[1:])

    return gate.register_forward_pre_hook(hook)


def _close_gates(router: Router, experts: Sequence[int]) -> RemovableHandle:
    closed = list(experts)

    def hook(
        _router: nn.Module, _inputs: object, output: tuple[Tensor, RoutingInfo]
    ) -> tuple[Tensor, RoutingInfo]:
        gates, info = output
        kept = torch.ones(gates.shape[-1], dtype=gates.dtype, device=gates.device)
        kept[closed] = 0
        gates = gates * kept
        told = replace(
            info,
            gates=gates.detach(),
            load=expert_load(gates),
            open_rate=info.open_rate * kept,
        )
        return gates, told

    return router.register_forward_hook(hook)


def _zero(module: nn.Module, channels: slice) -> RemovableHandle:
    """The output of `module` becomes zero in the given channels of its last axis."""

    def hook(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        silent = output.clone()
        silent[..., channels] = 0
        return silent

    return module.register_forward_hook(hook)
