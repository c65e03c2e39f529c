"""What the routing benchmark measures of a trained model: answers, experts, synaptic operations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from benchmarks.routing_study.record import Synops
from hardware.energy.operations import Operation
from hardware.errors import LoweringError
from spikingmoe.analysis.measures import load_entropy
from spikingmoe.cli.metrics import energy_of
from spikingmoe.data.image_data import Split
from spikingmoe.layers.moe import ExpertLink
from spikingmoe.model import SpikingTransformer
from spikingmoe.train.checkpoint import Run
from spikingmoe.train.fit import EVALUATION_BATCH
from spikingmoe.train.loader import make_loader

COSTS = "horowitz45"


@dataclass(frozen=True, kw_only=True)
class Answers:
    """A model on a split.

    Attributes:
        right: (images,) booleans.
        choices: per mixture link, (E,) how often each expert was chosen.
        open_share: per link, (E,) share of decisions in which the gate was open, over the steps at
            which any gate of the link was.
    """

    right: np.ndarray
    choices: list[np.ndarray]
    open_share: list[np.ndarray]


@torch.no_grad()
def answer(model: SpikingTransformer, split: Split) -> Answers:
    """Run the model in evaluation mode, batch by batch; gates are summed, not kept."""
    model.eval()
    right = []
    opened: list[torch.Tensor] = []  # per link, (T, E)
    rows: list[int] = []  # per link, decisions per step
    for images, labels in make_loader(split, EVALUATION_BATCH):
        out = model(images)
        right.append(out.logits.argmax(1) == labels)
        for link, info in enumerate(out.routing):
            sums = info.gates.sum(dim=(1, 2), dtype=torch.float64)
            if link == len(opened):
                opened.append(torch.zeros_like(sums))
                rows.append(0)
            opened[link] += sums
            rows[link] += info.gates.shape[1] * info.gates.shape[2]
    return Answers(
        right=torch.cat(right).numpy(),
        choices=[sums.sum(0).numpy() for sums in opened],
        open_share=[_share(sums, n) for sums, n in zip(opened, rows, strict=True)],
    )


def _share(opened_TE: torch.Tensor, rows: int) -> np.ndarray:
    working = opened_TE[opened_TE.sum(1) > 0]
    return (working.mean(0) / rows if len(working) else opened_TE[0] / rows).numpy()


def active_parameters(model: SpikingTransformer, open_share: list[np.ndarray]) -> float:
    """Parameters less those of experts behind closed gates.

    Each of an expert's parameters counts by the share of decisions in which its gate was open; those
    that the links of a chain have in common by the sum of the links' shares, at most 1.
    """
    links = [m for m in model.modules() if isinstance(m, ExpertLink)]
    share_of: dict[nn.Parameter, np.ndarray] = {}
    for link, share in zip(links, open_share, strict=True):
        for parameter in link.experts.parameters():
            share_of[parameter] = share_of.get(parameter, np.zeros_like(share)) + share
    idle = sum(
        p.numel() / len(s) * float((1 - np.minimum(s, 1)).sum()) for p, s in share_of.items()
    )
    return sum(p.numel() for p in model.parameters()) - idle


def expert_figures(answers: Answers) -> dict[str, float | int | None]:
    """Load entropy, dead experts, experts and open gates, as a `Record` names them."""
    loads, shares = answers.choices, answers.open_share
    return {
        "load_entropy": float(np.mean([load_entropy(c) for c in loads])) if loads else None,
        "dead_experts": sum(int((c == 0).sum()) for c in loads) if loads else None,
        "experts": sum(len(c) for c in loads),
        "open_experts": float(np.mean([s.sum() for s in shares])) if shares else None,
    }


def measure_synops(run: Run, split: Split) -> tuple[Synops | None, float | None, str | None]:
    """(synaptic operations, energy in nJ, None), or (None, None, why it cannot be lowered).

    Counted from the spikes of the lowered network on the images of `split`, by the reference in
    floating point.
    """
    try:
        report = energy_of(run, split, [COSTS], None)[COSTS]
    except LoweringError as refusal:
        return None, None, str(refusal)
    by_part = {part: energy.synops_per_sample for part, energy in report.by_part.items()}

    def of(*roots: str) -> float:
        return sum(n for part, n in by_part.items() if part.partition(".")[0] in roots)

    total = report.synops_per_sample
    experts, router, prompt = of("experts", "mlp"), of("router"), of("prompt")
    synops = Synops(
        total=total,
        experts=experts,
        router=router,
        prompt=prompt,
        rest=total - experts - router - prompt,
        graded=report.counts_per_sample[Operation.MULTIPLY_ACCUMULATE],
    )
    return synops, report.energy_pj_per_sample.value / 1000, None
