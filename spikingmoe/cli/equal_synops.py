"""The dense twin whose measured synaptic operations equal the mixture's: a search over its width.

Spikes decide what a width costs, so each guess is trained and counted. The first guess spends on the
MLP what the mixture spends on experts, router and prompt; then secant steps.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from hardware.energy import EnergyReport
from hardware.files import write_json
from spikingmoe.cli.metrics import energy_of, file_digest
from spikingmoe.config import ModelConfig, TrainConfig, dense_twin
from spikingmoe.data.image_data import ImageData
from spikingmoe.sizes import width_step
from spikingmoe.train.checkpoint import Run

TOLERANCE = 0.05  # relative
MOST_TRAININGS = 4
IMAGES = 64
FILE = "widths.json"
COSTS = "horowitz45"  # any table: operations alone are used
TrainTwin = Callable[[ModelConfig, Path], Run]


@dataclass(frozen=True, kw_only=True)
class Search:
    """How far the search has come.

    Attributes:
        origin: SHA-256 of the mixture's checkpoint, and the twins' seed: a result of another mixture is
            not reused.
        target: synaptic operations per image of the mixture.
        images: held-out images that all were counted on.
        tried: (width, synaptic operations per image) of every twin that was trained.
    """

    origin: str
    target: float
    images: int
    tried: tuple[tuple[int, float], ...] = ()

    @property
    def best(self) -> tuple[int, float]:
        """The (width, operations) nearest to the target; the first of equals."""
        return min(self.tried, key=lambda one: abs(one[1] - self.target))

    @property
    def off(self) -> float:
        """How far the best one is from the target, as a share of it, with its sign."""
        return self.best[1] / self.target - 1

    @property
    def reached(self) -> bool:
        """Whether the best one is within the tolerance."""
        return bool(self.tried) and abs(self.off) <= TOLERANCE


def search_width(
    target: float,
    first: int,
    slope: float,
    step: int,
    measure: Callable[[int], float],
    tried: tuple[tuple[int, float], ...] = (),
) -> tuple[tuple[int, float], ...]:
    """(width, operations) of each width that was measured; stops within 5 %, or after 4.

    Args:
        first: the first width. slope: operations per unit of width that it assumes.
        step: widths are multiples of it.
        measure: operations at a width; called once per width.
        tried: what was measured before.

    >>> search_width(100.0, 8, 4.0, 1, lambda width: 20 + 5.0 * width)
    ((8, 60.0), (18, 110.0), (16, 100.0))
    """
    found = list(tried)
    width = first if not found else _next_width(target, found, slope, step)
    while len(found) < MOST_TRAININGS and width not in {w for w, _ in found}:
        found.append((width, measure(width)))
        if abs(found[-1][1] / target - 1) <= TOLERANCE:
            break
        width = _next_width(target, found, slope, step)
    return tuple(found)


def _next_width(target: float, found: list[tuple[int, float]], slope: float, step: int) -> int:
    if len(found) > 1:
        (w0, s0), (w1, s1) = found[-2:]
        secant = (s1 - s0) / (w1 - w0)
        slope = secant if secant > 0 else slope
    width, synops = found[-1]
    return max(1, round((width + (target - synops) / slope) / step)) * step


def equal_synops_twin(
    run: Run, settings: TrainConfig, data: ImageData, folder: Path, train_twin: TrainTwin
) -> tuple[Run, Search]:
    """The trained twin, and the search that found it (kept in `folder`, with every twin).

    Args:
        settings: of the twins.
        folder: one folder `width-N` per twin.
        train_twin: trains a configuration in a folder, or loads it from there.
    """
    held_out = data.validation if len(data.validation) else data.train
    split = held_out.first(min(IMAGES, len(held_out)))
    path, origin = folder / FILE, f"{file_digest(run.path)} {settings.seed}"
    search = _read(path, origin)
    runs: dict[int, Run] = {}

    def twin_of(width: int) -> Run:
        if width not in runs:
            config = dense_twin(run.model_config, mlp_width=width)
            runs[width] = train_twin(config, folder / f"width-{width}")
        return runs[width]

    def measure(width: int) -> float:
        report = energy_of(twin_of(width), split, [COSTS], None)[COSTS]
        return report.synops_per_sample

    if search is None or not search.tried:
        report = energy_of(run, split, [COSTS], None)[COSTS]
        first, slope = predicted_width(run.model_config, report)
        step = width_step(run.model_config)
        search = Search(origin=origin, target=report.synops_per_sample, images=len(split))
        tried = search_width(search.target, first, slope, step, measure)
        search = replace(search, tried=tried)
        write_json(path, asdict(search))
    return twin_of(search.best[0]), search


def predicted_width(config: ModelConfig, mixture: EnergyReport) -> tuple[int, float]:
    """(width at which an MLP costs what experts, router and prompt do, operations per unit of width).

    An MLP of the chosen experts' joint width costs what they do; half of that lies in the part
    "experts", the way back to the stream in "residual".
    """
    step, chosen = width_step(config), config.top_k * config.expert_width
    parts = {name: part.synops_per_sample for name, part in mixture.by_part.items()}
    experts = 2 * sum(n for name, n in parts.items() if name.partition(".")[0] == "experts")
    others = sum(n for name, n in parts.items() if name.partition(".")[0] in ("router", "prompt"))
    if experts <= 0:  # silent experts tell nothing of what an MLP would cost
        return chosen, mixture.synops_per_sample / (4 * chosen)
    width = chosen * (1 + others / experts)
    return max(1, round(width / step)) * step, experts / chosen


def _read(path: Path, origin: str) -> Search | None:
    """The kept search; None if there is none, it is of another mixture, or it is damaged."""
    try:
        values = json.loads(path.read_text())
        tried = tuple((int(width), float(synops)) for width, synops in values.pop("tried"))
        search = Search(**values, tried=tried)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return search if search.origin == origin else None


def describe(search: Search) -> str:
    """One line that says what was reached."""
    width, synops = search.best
    verdict = "within" if search.reached else "NOT within"
    return (
        f"dense_synops: width {width}, {synops:,.0f} synaptic operations per image, "
        f"{100 * search.off:+.1f} % of the mixture's {search.target:,.0f} ({verdict} "
        f"{100 * TOLERANCE:.0f} %; {len(search.tried)} trained, counted on {search.images} held-out images)"
    )
