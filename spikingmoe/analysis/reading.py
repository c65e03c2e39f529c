"""Reading a trained mixture: who works, how surely, for which classes and where in the image."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from spikingmoe.analysis.firing import FiringRecord, record_firing
from spikingmoe.analysis.measures import (
    Information,
    class_information,
    class_table,
    information,
    load_entropy,
    shares,
)
from spikingmoe.analysis.tally import RoutingTally
from spikingmoe.data.image_data import Split, model_input
from spikingmoe.layers.router import Router
from spikingmoe.model import SpikingTransformer

DEAD_SHARE = 0.01  # of the even share 1/E: an expert with less load counts as dead
BATCH = 64
SHUFFLES = 99  # shuffled tables per test: the smallest p-value is 0.01


@dataclass(frozen=True)
class LinkReading:
    """One router and its experts. E experts, C classes, T steps, `side` x `side` tokens.

    Attributes:
        name: dotted name of the link's module; a chain in depth has several links per block.
        block: number of its block.
        load: (E,) share of all choices; zeros if nothing was ever chosen.
        open_rate: (E,) share of (image, step, token) for which the expert's gate is open.
        open_counts: (E + 1,) share of (image, step, token) with 0, 1, ... E open gates.
        open_per_step: (T,) mean number of open gates per token. Under hold="window" none is open
            before the step that decides.
        load_entropy: entropy of `load` over log(E): 1 even, 0 one expert alone.
        routing_entropy: mean over steps of `entropy_per_step`.
        entropy_per_step: (T,) how undecided the scores are, without the homeostatic bias: entropy
            of their softmax over log(E), or of their sigmoids over log(2) where experts decide
            alone; 0 sure, 1 blind.
        gate_changes: (T - 1,) of the tokens with an open gate at two neighbouring steps, the share
            whose experts differ; NaN where there is no such token.
        class_shares: (C, E) P(expert | class), over the choices of the class; NaN without any.
        region_shares: (E, side, side) P(expert | token), over the choices at that token.
        by_class: information between class and expert; chance: labels dealt anew to the images.
        by_region: information between token and expert; chance: each image's map rolled at random
            (rows and columns, around the edges), which keeps neighbours alike.
        hidden_rates: (E, F) spikes per step of each hidden neuron while its gate is open; NaN for an
            expert that was never open.
        dead_neurons: share of the hidden neurons of the experts that were open at all which never
            spiked; NaN if no expert was.
    """

    name: str
    block: int
    side: int
    load: np.ndarray
    open_rate: np.ndarray
    open_counts: np.ndarray
    open_per_step: np.ndarray
    load_entropy: float
    entropy_per_step: np.ndarray
    gate_changes: np.ndarray
    class_shares: np.ndarray
    region_shares: np.ndarray
    by_class: Information
    by_region: Information
    hidden_rates: np.ndarray
    dead_neurons: float

    @property
    def routing_entropy(self) -> float:
        """Mean of `entropy_per_step`."""
        return float(self.entropy_per_step.mean())

    @property
    def dead_experts(self) -> tuple[int, ...]:
        """Experts whose load is below 1 % of the even share (`DEAD_SHARE`)."""
        return tuple(np.flatnonzero(self.load < DEAD_SHARE / len(self.load)).tolist())

    @property
    def expert_rates(self) -> np.ndarray:
        """(E,) mean of `hidden_rates` over the hidden neurons."""
        return self.hidden_rates.mean(axis=1)

    @property
    def mean_open(self) -> float:
        """Mean number of open gates per image, step and token."""
        return float(self.open_rate.sum())

    @property
    def mean_change(self) -> float | None:
        """Mean of `gate_changes` over the steps that have any; None if none has."""
        known = self.gate_changes[~np.isnan(self.gate_changes)]
        return float(known.mean()) if len(known) else None


@dataclass(frozen=True)
class MixtureReading:
    """What `read_mixture` found on `samples` images.

    Attributes:
        links: one per router, in the order they work.
        firing_rates: spikes per neuron and step of every LIF population, by its module's name; the
            hidden neurons of experts include those behind closed gates here.
        silent_shares: share of each population's neurons that never spiked.
    """

    samples: int
    accuracy: float
    links: tuple[LinkReading, ...]
    firing_rates: dict[str, float]
    silent_shares: dict[str, float]

    @property
    def loads(self) -> dict[str, np.ndarray]:
        """(E,) per mixture, `blocks.i.moe`: share of the choices of all its links."""
        summed: dict[str, np.ndarray] = {}
        for link in self.links:
            name = mixture_of(link.name)
            summed[name] = summed.get(name, np.zeros_like(link.load)) + link.open_rate
        return {name: np.nan_to_num(shares(open_)) for name, open_ in summed.items()}


def mixture_of(link: str) -> str:
    """`blocks.0.moe.links.1` -> `blocks.0.moe`."""
    return ".".join(link.split(".")[:3])


def routers_of(model: nn.Module) -> dict[str, Router]:
    """Routers by the dotted name of their link, in the order they work."""
    return {
        name.removesuffix(".router"): module
        for name, module in model.named_modules()
        if isinstance(module, Router)
    }


@torch.no_grad()
def read_mixture(
    model: SpikingTransformer,
    split: Split,
    *,
    shuffles: int = SHUFFLES,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> MixtureReading:
    """Run the model on the images of `split` and read every mixture.

    The model runs in evaluation mode, experts in their masked form; both are put back afterwards.

    Args:
        shuffles: shuffled tables against which information is held.
        progress: called with (images done, images).

    Raises:
        ValueError: a model without a mixture.
    """
    routers = routers_of(model)
    if not routers:
        raise ValueError(
            f"model '{model.config.preset}' has no mixture to read (routing='dense'); "
            "give a run trained with another routing"
        )
    tallies = [
        RoutingTally(competitive=r.choose.competitive, shuffles=shuffles, seed=seed + i)
        for i, r in enumerate(routers.values())
    ]
    weight = model.head.weight
    correct, was_training = 0, model.training
    model.eval()
    try:
        with record_firing(model) as firing:
            for start in range(0, len(split), BATCH):
                batch = split.at(slice(start, start + BATCH))
                out = model(model_input(batch.images).to(weight.device, weight.dtype))
                correct += int((out.logits.argmax(1).cpu() == batch.labels).sum())
                steps = zip(tallies, routers.values(), out.routing, strict=True)
                for tally, router, info in steps:
                    tally.add(info.gates, router.choose.probability(info.scores))
                if progress is not None:
                    progress(min(start + BATCH, len(split)), len(split))
    finally:
        model.train(was_training)
    labels, classes = split.labels.numpy(), model.config.num_classes
    return MixtureReading(
        samples=len(split),
        accuracy=correct / len(split),
        links=tuple(
            _read_link(name, tally, firing, labels, classes, seed=seed + i)
            for i, (name, tally) in enumerate(zip(routers, tallies, strict=True))
        ),
        firing_rates={name: p.rate for name, p in firing.populations.items()},
        silent_shares={name: p.silent_share for name, p in firing.populations.items()},
    )


def _read_link(
    name: str,
    tally: RoutingTally,
    firing: FiringRecord,
    labels: np.ndarray,
    classes: int,
    *,
    seed: int,
) -> LinkReading:
    counts_BE = np.concatenate(tally.choices_BE)
    counts_NE, chosen_E = tally.choices_NE, counts_BE.sum(axis=0)
    tokens, steps = len(counts_NE), len(tally.open_per_step)
    rows, side = tally.images * tokens * steps, math.isqrt(tokens)
    with np.errstate(invalid="ignore", divide="ignore"):
        hidden = firing.hidden_spikes(f"{name}.experts").numpy() / chosen_E[:, None]
        changes = np.where(tally.both_open > 0, tally.changed / tally.both_open, np.nan)
    hidden[chosen_E == 0] = np.nan
    used = hidden[chosen_E > 0]
    return LinkReading(
        name=name,
        block=int(name.split(".")[1]),
        side=side,
        load=np.nan_to_num(shares(chosen_E)),
        open_rate=chosen_E / rows,
        open_counts=tally.open_counts / rows,
        open_per_step=tally.open_per_step / (tally.images * tokens),
        load_entropy=load_entropy(chosen_E),
        entropy_per_step=tally.entropy_per_step / tally.images,
        gate_changes=changes,
        class_shares=shares(class_table(counts_BE, labels, classes)),
        region_shares=shares(counts_NE).T.reshape(-1, side, side),
        by_class=class_information(counts_BE, labels, classes, shuffles=tally.shuffles, seed=seed),
        by_region=information(counts_NE, tally.rolled_RNE),
        hidden_rates=hidden,
        dead_neurons=float((used == 0).mean()) if used.size else math.nan,
    )
