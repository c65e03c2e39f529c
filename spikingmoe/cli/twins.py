"""The models that a mixture is compared with, trained by the same command under the same recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from spikingmoe.cli.chain import train_run
from spikingmoe.cli.console import say
from spikingmoe.cli.equal_synops import FILE, describe, equal_synops_twin
from spikingmoe.config import (
    ModelConfig,
    dense_twin,
    quantised_relu_twin,
    relu_twin,
    unknown,
)
from spikingmoe.data.image_data import ImageData
from spikingmoe.rounding import with_rounded_weights
from spikingmoe.sizes import equal_parameters_width
from spikingmoe.train.checkpoint import Run, load_run, newest_valid

DENSE_SYNOPS = "dense_synops"


def dense_params_twin(config: ModelConfig) -> ModelConfig:
    """The dense twin whose parameters are nearest to the mixture's."""
    return dense_twin(config, mlp_width=equal_parameters_width(config))


#: All but `dense_synops`, which has to be searched for.
TWINS: dict[str, Callable[[ModelConfig], ModelConfig]] = {
    "dense": dense_twin,
    "relu": relu_twin,
    "dense_params": dense_params_twin,
    "quantised_relu": quantised_relu_twin,
}
NAMES = (*TWINS, DENSE_SYNOPS)
USUAL = ("dense", "relu")


def chosen_twins(text: str) -> tuple[str, ...]:
    """Names from `--twins`: true (dense and relu), false (none), or a list with commas.

    Raises:
        ValueError: for anything else.
    """
    if text.lower() in ("true", "yes"):
        return USUAL
    if text.lower() in ("false", "no"):
        return ()
    names = tuple(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in NAMES:
            raise ValueError(
                f"twins={text}; needs true or false, or names with commas: {unknown('twin', name, NAMES)}"
            )
    return names


def load_twins(run: Run, folder: Path, data: ImageData, *, make: Sequence[str]) -> dict[str, Run]:
    """The twins of a mixture that `folder` holds, and those of `make`, trained by the run's own recipe.

    The quantised twin has its weights rounded to 8 bits, as it is meant to run.
    """
    twins: dict[str, Run] = {}
    if run.model_config.routing == "dense":
        return twins

    def train_twin(name: str, config: ModelConfig, out: Path) -> Run:
        steps = data.in_steps(config.time_steps)
        return train_run(config, run.train_config, steps, out, resume=True, title=f"{name} twin")

    for name, twin_of in TWINS.items():
        out = folder / name
        if name in make:
            twins[name] = train_twin(name, twin_of(run.model_config), out)
        elif newest_valid(out) is not None:
            twins[name] = load_run(out)
    out = folder / DENSE_SYNOPS
    if DENSE_SYNOPS in make or (out / FILE).exists():
        twins[DENSE_SYNOPS], search = equal_synops_twin(
            run,
            run.train_config,
            data,
            out,
            lambda config, where: train_twin(DENSE_SYNOPS, config, where),
        )
        say(describe(search))
    return {name: as_it_runs(twin) for name, twin in twins.items()}


def as_it_runs(run: Run) -> Run:
    """A quantised network with its weights rounded; any other as it is."""
    if not run.model_config.activation_bits:
        return run
    return replace(run, model=with_rounded_weights(run.model))


def tables_for(twins: Mapping[str, Run]) -> list[str]:
    """The convention, and the table of integers beside it where a quantised twin needs one."""
    return ["horowitz45", *(["horowitz45-int"] if "quantised_relu" in twins else [])]
