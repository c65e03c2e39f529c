"""What can be silenced in a model, by name."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from spikingmoe.layers.attention import QKAttention, SpikingSelfAttention
from spikingmoe.layers.moe import DenseMLP, MixtureOfExperts
from spikingmoe.layers.prompt import FeedbackPrompt
from spikingmoe.model import SpikingTransformer

BUSIEST = "busiest"


@dataclass(frozen=True)
class Target:
    """One thing to silence.

    Attributes:
        name: what it is called.
        kind: "expert", "mixture", "shared expert", "dense MLP", "head", "attention",
            "mixing" or "prompt".
        experts: (mixture, expert) whose gates close, in every link of a chain.
        modules: whose output becomes zero.
        channels: (module, first, last + 1) of its output that become zero.
    """

    name: str
    kind: str
    experts: tuple[tuple[str, int], ...] = ()
    modules: tuple[str, ...] = ()
    channels: tuple[tuple[str, int, int], ...] = ()


def list_targets(model: SpikingTransformer) -> dict[str, Target]:
    """Everything that can be silenced, by name, in the order it works.

    prompt                      its bits become 0 (of all blocks, with cortical feedback)
    blocks.1.prompt             with cortical feedback, those of one block
    blocks.1.mixing             the local mixing gives no current
    blocks.1.attention          the attention branch gives no current
    blocks.1.attention.heads.0  the channels of one head ("qk" and "ssa"; "sdsa" and "dwconv" have none)
    blocks.1.moe                all experts and shared experts of a block
    blocks.1.moe.experts.2      one expert, in every link of a chain (its links share the weights)
    blocks.1.moe.shared         the shared experts
    blocks.1.mlp                a dense MLP
    """
    found: list[Target] = []
    prompts = [n for n, m in model.named_modules() if isinstance(m, FeedbackPrompt)]
    if model.prompt is not None:
        found.append(Target("prompt", "prompt", modules=tuple(prompts) or ("prompt",)))
    for index, block in enumerate(model.blocks):
        name = f"blocks.{index}"
        if f"{name}.prompt" in prompts:
            found.append(Target(f"{name}.prompt", "prompt", modules=(f"{name}.prompt",)))
        if block.mixing is not None:
            found.append(Target(f"{name}.mixing", "mixing", modules=(f"{name}.mixing",)))
        if block.attention is not None:
            found.append(Target(f"{name}.attention", "attention", modules=(f"{name}.attention",)))
            found.extend(_heads(f"{name}.attention", block.attention))
        if isinstance(block.moe, MixtureOfExperts):
            found.extend(_mixture(f"{name}.moe", block.moe))
        if isinstance(block.mlp, DenseMLP):
            found.append(Target(f"{name}.mlp", "dense MLP", modules=(f"{name}.mlp.mlp",)))
    return {target.name: target for target in found}


def _heads(name: str, attention: object) -> list[Target]:
    if isinstance(attention, QKAttention):
        heads, gated = len(attention.gain), f"{name}.gate"
    elif isinstance(attention, SpikingSelfAttention):
        heads, gated = attention.products.heads, f"{name}.attention_neuron"
    else:
        return []
    width = attention.project.linear.in_features // heads
    return [
        Target(f"{name}.heads.{h}", "head", channels=((gated, h * width, (h + 1) * width),))
        for h in range(heads)
    ]


def _mixture(name: str, mixture: MixtureOfExperts) -> list[Target]:
    every = tuple((name, e) for e in range(mixture.router.choose.experts))
    shared = (f"{name}.shared",) if mixture.shared is not None else ()
    return [
        Target(name, "mixture", experts=every, modules=shared),
        *(Target(f"{name}.experts.{one[1]}", "expert", experts=(one,)) for one in every),
        *(Target(part, "shared expert", modules=(part,)) for part in shared),
    ]


def choose_targets(
    model: SpikingTransformer,
    names: Sequence[str],
    loads: Mapping[str, np.ndarray] | None = None,
) -> list[Target]:
    """The targets that `names` mean, each once, in the order given.

    A name may hold `*` (`blocks.*.moe.experts.2`: every block's expert 2), and the last part of an
    expert's name may be `busiest`.

    Args:
        loads: (E,) per mixture (`MixtureReading.loads`); needed for `busiest` only.

    Raises:
        ValueError: a name that means nothing here; says the closest one and what there is.
    """
    targets = list_targets(model)
    chosen: dict[str, Target] = {}
    for name in names:
        head, _, tail = name.rpartition(".")
        pattern = f"{head}.*" if tail == BUSIEST else name
        matching = {n: t for n, t in targets.items() if fnmatchcase(n, pattern)}
        if tail == BUSIEST:
            matching = _busiest(matching, loads or {})
        if not matching:
            raise ValueError(_unknown(name, targets))
        chosen |= matching
    return list(chosen.values())


def _busiest(targets: Mapping[str, Target], loads: Mapping[str, np.ndarray]) -> dict[str, Target]:
    mixtures = {t.experts[0][0] for t in targets.values() if t.kind == "expert"}
    if missing := sorted(mixtures - set(loads)):
        raise ValueError(f"lesion '{BUSIEST}': no load is known of {missing[0]}; give its load")
    names = {f"{mixture}.experts.{int(np.argmax(loads[mixture]))}" for mixture in mixtures}
    return {name: target for name, target in targets.items() if name in names}


def _unknown(name: str, targets: Mapping[str, Target]) -> str:
    close = difflib.get_close_matches(name, targets, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    there = ", ".join(_ranges(targets)) or "nothing"
    return f"unknown lesion target '{name}'{hint} (there are: {there}; * and {BUSIEST} too)"


def _ranges(names: Iterable[str]) -> list[str]:
    """`a.experts.0`, `a.experts.1`, `a.experts.2` as `a.experts.0..2`."""
    lines = []
    for head, group in itertools.groupby(sorted(names), lambda n: _numbered(n)[0]):
        numbers = [_numbered(name)[1] for name in group]
        known = [number for number in numbers if number is not None]
        lines.append(head if not known else f"{head}.{_span(known)}")
    return lines


def _numbered(name: str) -> tuple[str, int | None]:
    head, _, tail = name.rpartition(".")
    return (head, int(tail)) if tail.isdecimal() else (name, None)


def _span(numbers: list[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{min(numbers)}..{max(numbers)}"


def together(targets: Sequence[Target]) -> Target:
    """One target that silences all of `targets` at once."""
    return Target(
        name=" + ".join(target.name for target in targets),
        kind="several",
        experts=tuple(one for target in targets for one in target.experts),
        modules=tuple(one for target in targets for one in target.modules),
        channels=tuple(one for target in targets for one in target.channels),
    )
