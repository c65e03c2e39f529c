"""What a study of energy against accuracy trains: points on a few axes, and twins of the mixture."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace

from spikingmoe.cli.twins import DENSE_SYNOPS, NAMES, TWINS
from spikingmoe.config import ModelConfig, override

MIXTURE = "moe"
MODELS = (MIXTURE, *NAMES)
SPIKING_TWINS = ("dense", "dense_params", DENSE_SYNOPS)


@dataclass(frozen=True, kw_only=True)
class Point:
    """One model of the study.

    Attributes:
        model: "moe", or the twin of the mixture that the rest describes.
        experts, top_k, routing, time_steps, attention: of the mixture.
    """

    model: str
    experts: int
    top_k: int
    routing: str
    time_steps: int
    attention: str

    @property
    def name(self) -> str:
        """Its name in tables and folders."""
        words = [self.model, f"e{self.experts}", f"k{self.top_k}", self.routing]
        return "-".join([*words, f"t{self.time_steps}", self.attention])

    @property
    def is_mixture(self) -> bool:
        """Whether it is no twin."""
        return self.model == MIXTURE

    @property
    def mixture(self) -> Point:
        """The mixture that it is a twin of, or itself."""
        return replace(self, model=MIXTURE)

    def mixture_config(self, base: ModelConfig) -> ModelConfig:
        """The mixture's configuration; ValueError, with the point's name, if it is not allowed."""
        changes: dict[str, object] = {
            "num_experts": self.experts,
            "top_k": self.top_k,
            "routing": self.routing,
            "time_steps": self.time_steps,
            "attention": self.attention,
        }
        if self.routing == "hash":  # it hashes the token's spikes alone
            changes["prompt"] = "none"
        if self.routing == "hierarchical" and base.routing != "hierarchical":
            changes["num_groups"] = 2
        if self.routing != "hierarchical":
            changes["num_groups"] = 1
        try:
            return override(base, **changes)
        except ValueError as error:
            raise ValueError(f"point '{self.name}': {error}") from None

    def config(self, base: ModelConfig) -> ModelConfig:
        """Its configuration; for `dense_synops`, whose width is searched for, the mixture's."""
        mixture = self.mixture_config(base)
        return TWINS[self.model](mixture) if self.model in TWINS else mixture

    def as_dict(self) -> dict[str, object]:
        """JSON values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Axes:
    """Values of each axis; the preset's own value is a point of every axis but a grid's.

    Attributes:
        bits: of the weights in fixed point, after training; they need no training of their own. The
            first one is the precision of the picture.
        twins: of the mixture that the preset describes.
    """

    experts: tuple[int, ...]
    top_k: tuple[int, ...]
    routing: tuple[str, ...]
    time_steps: tuple[int, ...]
    attention: tuple[str, ...]
    bits: tuple[int, ...]
    twins: tuple[str, ...]

    def product(self) -> dict[str, tuple[int | str, ...]]:
        """The axes that need training, as `Point` names them."""
        names = ("experts", "top_k", "routing", "time_steps", "attention")
        return {name: getattr(self, name) for name in names}


def base_point(base: ModelConfig) -> Point:
    """The preset's own mixture."""
    return Point(
        model=MIXTURE,
        experts=base.num_experts,
        top_k=base.top_k,
        routing=base.routing,
        time_steps=base.time_steps,
        attention=base.attention,
    )


def factor_points(base: ModelConfig, axes: Axes) -> list[Point]:
    """The preset, its twins, and one factor changed at a time.

    With other time steps come the dense and the quantised twin of the same T, which the question
    at which spike rate spikes pay needs; the float ReLU twin has no T.

    Raises:
        ValueError: a point is not allowed.
    """
    first = base_point(base)
    points = [first]
    for name, values in axes.product().items():
        points += [replace(first, **{name: value}) for value in values]  # type: ignore[arg-type]
    points += [replace(first, model=twin) for twin in axes.twins]
    for steps in axes.time_steps:
        for twin in ("dense", "quantised_relu"):
            if twin in axes.twins:
                points.append(replace(first, model=twin, time_steps=steps))
    for point in points:
        point.config(base)
    return list(dict.fromkeys(points))


def grid_points(base: ModelConfig, axes: Axes) -> list[Point]:
    """Every allowed combination, with the twins of the preset at each T and attention.

    Raises:
        ValueError: no combination is allowed.
    """
    first, names = base_point(base), list(axes.product())
    found = [
        replace(first, **dict(zip(names, values, strict=True)))  # type: ignore[arg-type]
        for values in itertools.product(*axes.product().values())
    ]
    points = [point for point in found if is_allowed(point, base)]
    if not points:
        raise ValueError(f"no combination of the axes is allowed: {why_not(found[0], base)}")
    points += [
        replace(first, model=twin, time_steps=steps, attention=attention)
        for twin, steps, attention in itertools.product(axes.twins, axes.time_steps, axes.attention)
    ]
    return list(dict.fromkeys(points))


def is_allowed(point: Point, base: ModelConfig) -> bool:
    """Whether the point can be built."""
    return not why_not(point, base)


def why_not(point: Point, base: ModelConfig) -> str:
    """Why a point cannot be built; empty if it can."""
    try:
        point.config(base)
    except ValueError as error:
        return str(error)
    return ""


def point_from(values: dict[str, object]) -> Point:
    """A point from JSON values; ValueError for others."""
    names = {f.name for f in fields(Point)}
    if set(values) != names:
        raise ValueError(f"a point needs {', '.join(sorted(names))}")
    return Point(**values)  # type: ignore[arg-type]


def check_distinct(what: str, values: Iterable[object]) -> None:
    """ValueError for a value that is given twice."""
    seen: set[object] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{what}: {value} is given twice; give each value once")
        seen.add(value)


def mixtures_first(points: Sequence[Point]) -> list[Point]:
    """Twins that need a trained mixture come after it."""
    return sorted(points, key=lambda p: p.model == DENSE_SYNOPS)
