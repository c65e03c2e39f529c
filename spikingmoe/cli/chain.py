"""The steps that commands share: folders, runs, training, twins."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jsonargparse import Namespace

from hardware.errors import FileError
from hardware.ir.graph import SpikeGraph
from spikingmoe.cli.console import progress
from spikingmoe.cli.training_progress import training_progress
from spikingmoe.config import ModelConfig, RunOptions, TrainConfig
from spikingmoe.data import load_data, load_data_for
from spikingmoe.data.fit import check_shapes
from spikingmoe.data.image_data import ImageData, Split
from spikingmoe.train.bundled import bundled_file
from spikingmoe.train.checkpoint import Run, load_run
from spikingmoe.train.fit import train

MOST_IMAGES = 512  # without a wish: the reference takes a few minutes for more
MOE = "moe"


def model_name(run: Run) -> str:
    """What a run is called beside its twins: moe, dense, relu or quantised_relu."""
    if not run.model_config.is_spiking:
        return run.model_config.neuron
    return "dense" if run.model_config.routing == "dense" else MOE


def output_folder(given: str | None, default: Path) -> Path:
    """The folder for a command's results, made before any work is done."""
    folder = Path(given) if given else default
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(
            f"{folder}: cannot hold results ({error.strerror}); use another --out"
        ) from None
    return folder


def test_images(data: ImageData, images: int | None) -> Split:
    """The first `images` of the test set; all of them up to 512 if no number is given.

    Raises:
        ValueError: for a number of images that the test set does not have.
    """
    if images is not None and not 1 <= images <= len(data.test):
        raise ValueError(
            f"images={images}; there are {len(data.test)} test images, use 1 to {len(data.test)}"
        )
    return data.test.first(min(MOST_IMAGES, len(data.test)) if images is None else images)


def check_time_limit(seconds: float) -> None:
    """ValueError for a limit that no Lava run can keep, before any work is done."""
    if not 0 < seconds < math.inf:
        raise ValueError(f"time_limit={seconds} must be a positive number of seconds")


@dataclass
class Clock:
    """Seconds per stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage."""
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 3)


def open_run(path: str) -> Run:
    """Load a run and give torch the CPU threads of its recipe."""
    run = load_run(path)
    torch.set_num_threads(run.train_config.threads)
    return run


def open_program(path: str) -> SpikeGraph:
    """A program that `spikingmoe lower` wrote; ValueError for the name of a bundled checkpoint."""
    if bundled_file(path) is not None and not Path(path).is_file():
        raise ValueError(
            f"{path}: is a bundled checkpoint, no program; use "
            f"`spikingmoe lower {path} -o {path}.program` first"
        )
    return SpikeGraph.load(path)


def program_data(graph: SpikeGraph, args: Namespace) -> ImageData:
    """The data set that a command names, or the one that the program was trained on, as it takes it."""
    if not args.data and "data" not in graph.notes:
        raise ValueError(f"{args.program}: does not say which data it was trained on; use --data")
    if len(graph.data_input.shape) != 3:
        raise ValueError(
            f"{args.program}: takes vectors {graph.data_input.shape}, and all data sets are images; use "
            f"hardware.simulate.simulate from Python (map: --rate)"
        )
    height, _, channels = graph.data_input.shape
    return load_data(
        args.data or str(graph.notes["data"]),
        args.data_dir,
        image_size=height,
        channels=channels,
        time_steps=graph.time_steps,
        watch=progress,
    )


def open_data(run: Run, args: Namespace) -> ImageData:
    """The data set that a command names, or the run's own, as the run's model takes it."""
    name = getattr(args, "data", None) or run.train_config.data
    data = load_data_for(run.model_config, name, args.data_dir, watch=progress)
    check_shapes(run.model_config, data)
    return data


def train_run(
    config: ModelConfig,
    settings: TrainConfig,
    data: ImageData,
    out: Path,
    *,
    resume: bool,
    title: str,
    options: RunOptions | None = None,
) -> Run:
    """Train with a bar on a terminal, and lines elsewhere: every few epochs, at least one a minute."""
    torch.set_num_threads(settings.threads)
    with training_progress(title, settings.epochs) as watch:
        return train(config, settings, data, out, resume=resume, options=options, watch=watch)
