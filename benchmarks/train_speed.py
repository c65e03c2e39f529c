"""How fast does the network train? Images per second of whole training steps, against other neurons.

A step is forward, loss (cross entropy and the routing losses of the default recipe), backward and
AdamW. The sides are the same network with the same weights on the same batch: ours; with snnTorch's
stock `Leaky`, stepped in Python, in the place of every neuron; with SpikingJelly's multi-step LIF
there, as it comes and under `torch.compile`. (It also spikes at the threshold itself: the gains of
attention are moved off their initial values, with which some membranes are there.) In theirs batch norm and all else is plain torch, as a
user of those libraries writes it. Their losses and gradients are compared with ours before any time
is taken. All sides run in one process, in turns.

Ratios `vs_snntorch` and `vs_spikingjelly` (its fastest form; `..._eager`: as it comes) are those of the first preset in the
first precision; the others are named by what differs. A table says where the time of our step goes.

    python benchmarks/train_speed.py --json benchmarks/results/train_speed_cpu.json
    python benchmarks/train_speed.py --device cuda --batch 256 --preset cifar-tiny cifar-small \
        --json benchmarks/results/train_speed_cuda.json
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script: the folder of `benchmarks`

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.harness import PACKAGES, Report, paired_ratio, print_table, seconds_in_turns, spread
from benchmarks.harness import versions as versions_of
from benchmarks.neurons import competitors, library_ratios
from benchmarks.step_profile import profile_step
from spikingmoe.config import TrainConfig, get_preset, override
from spikingmoe.kernels import keep_freed_memory
from spikingmoe.layers import LIF
from spikingmoe.layers.router import RoutingLosses
from spikingmoe.model import SpikingTransformer
from spikingmoe.train.optim import make_optimizer

PRESETS = ("cifar-tiny", "cifar-small", "digits")
PRECISIONS = ("fp32", "bf16")
OURS = "ours"
#: Largest relative difference of the losses and of the gradient norms. Sums in another order, and in
#: bfloat16 membranes of another precision, move a few of them across the threshold; then spikes cascade.
TOLERANCE = {"fp32": (5e-3, 2e-2), "bf16": (5e-2, 2e-1)}
RECIPE = TrainConfig()


@dataclass(frozen=True)
class Side:
    """One network with its optimiser and the batch that it trains on."""

    model: SpikingTransformer
    optimiser: torch.optim.Optimizer
    images: Tensor
    labels: Tensor
    precision: str

    def loss(self) -> Tensor:
        """Cross entropy and the routing losses, in the precision of the side."""
        with self._autocast():
            out = self.model(self.images)
        smoothing = RECIPE.label_smoothing
        loss = F.cross_entropy(out.logits.float(), self.labels, label_smoothing=smoothing)
        for field in fields(RoutingLosses):
            weight = getattr(RECIPE, f"{field.name}_weight")
            if weight > 0 and out.routing:
                losses = [getattr(info.losses, field.name) for info in out.routing]
                loss = loss + weight * torch.stack(losses).mean()
        return loss

    def step(self) -> None:
        """A whole training step; returns when the device has done it."""
        self.optimiser.zero_grad(set_to_none=True)
        self.loss().backward()
        self.optimiser.step()
        if self.images.is_cuda:
            torch.cuda.synchronize()

    def loss_and_gradient_norm(self) -> tuple[float, float]:
        """What the first step finds, without taking it."""
        self.optimiser.zero_grad(set_to_none=True)
        loss = self.loss()
        loss.backward()
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack([g.float().norm() for g in gradients]))
        return float(loss.detach()), float(norm)

    def _autocast(self) -> AbstractContextManager:
        kind = self.images.device.type
        return torch.autocast(kind, torch.bfloat16, enabled=self.precision == "bf16")


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    torch.set_num_threads(args.threads)
    keep_freed_memory()  # all sides gain: large tensors are not mapped anew each time
    neurons: dict[str, Callable[[], nn.Module] | None] = {OURS: None}
    neurons |= competitors(compiled=args.compiled)
    extra = ["spikingjelly"] if "spikingjelly" in neurons else []
    report = Report(seeds=[args.seed], versions=versions_of([*PACKAGES, *extra]))
    for preset in args.preset:
        for precision in args.precision:
            sides = make_sides(neurons, preset, precision, args)
            checked = check_sides(sides, precision)
            time_sides(report, sides, preset, precision, args, checked)
            profile_ours(report, sides[OURS], preset, precision, args)
    report.print_end()
    if args.json:
        report.write(args.json)


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = "default %(default)s"
    parser.add_argument(
        "--preset", nargs="+", choices=PRESETS, default=["cifar-tiny"], help=default
    )
    parser.add_argument(
        "--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS), help=default
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help=default)
    parser.add_argument("--batch", type=int, default=64, help=f"images per step; {default}")
    parser.add_argument("--time-steps", type=int, default=4, help=default)
    parser.add_argument("--threads", type=int, default=2, help=f"of torch; {default}")
    parser.add_argument("--repeats", type=int, default=9, help=f"steps per side; {default}")
    parser.add_argument("--seed", type=int, default=0, help=f"of weights and batch; {default}")
    parser.add_argument(
        "--no-compile",
        dest="compiled",
        action="store_false",
        help="leave out SpikingJelly under torch.compile (compiling takes a minute or more)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the results there")
    args = parser.parse_args(argv)
    for name in ("batch", "time_steps", "threads", "repeats"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} {getattr(args, name)} must be at least 1")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU here; use --device cpu")
    return args


def make_sides(
    neurons: Mapping[str, Callable[[], nn.Module] | None],
    preset: str,
    precision: str,
    args: argparse.Namespace,
) -> dict[str, Side]:
    """{side: network}: the same weights and batch, other neurons."""
    torch.manual_seed(args.seed)
    config = override(get_preset(preset), time_steps=args.time_steps)
    base = SpikingTransformer(config).train()
    for name, parameter in base.named_parameters():
        if name.endswith("log_gain"):  # as it starts, some membranes meet the threshold exactly
            parameter.data += 0.1 * torch.randn_like(parameter)
    base = base.to(args.device)
    images = torch.randn(args.batch, *base.input_shape).to(args.device)
    labels = torch.randint(config.num_classes, (args.batch,)).to(args.device)
    sides = {}
    for name, make in neurons.items():
        model = copy.deepcopy(base)
        if make is not None:
            replace_neurons(model, make)
            keep_norms_plain(model)
        sides[name] = Side(model, make_optimizer(model, RECIPE), images, labels, precision)
    return sides


def replace_neurons(model: nn.Module, make: Callable[[], nn.Module]) -> int:
    """Put another library's neuron in the place of each of ours; returns how many there were.

    Raises:
        ValueError: a neuron has parameters that `benchmarks.neurons` does not build.
    """
    device = next(model.parameters()).device
    names = [name for name, module in model.named_modules() if isinstance(module, LIF)]
    for name in names:
        own = model.get_submodule(name)
        assert isinstance(own, LIF)
        if (own.membrane_decay, own.firing_threshold, own.detach_reset) != (0.5, 1.0, False):
            raise ValueError(f"neuron '{name}': {own.extra_repr()}; use decay 0.5 and threshold 1")
        parent, _, attribute = name.rpartition(".")
        neuron = make().to(device)
        owner = model.get_submodule(parent)
        if isinstance(owner, nn.ModuleList):
            owner[int(attribute)] = neuron
        else:
            setattr(owner, attribute, neuron)
    return len(names)


def keep_norms_plain(model: nn.Module) -> None:
    """Batch norm by torch's own operation: a hook on a norm rules our fused kernels out."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.register_forward_hook(lambda *_: None)


def check_sides(sides: Mapping[str, Side], precision: str) -> dict[str, dict[str, float]]:
    """Loss and gradient norm of each side before training.

    Raises:
        ValueError: they differ from ours by more than the tolerance.
    """
    own = sides[OURS].loss_and_gradient_norm()
    found = {}
    for name, side in sides.items():
        loss, norm = own if name == OURS else side.loss_and_gradient_norm()
        allowed = TOLERANCE[precision]
        gaps = [abs(a / b - 1) for a, b in zip((loss, norm), own, strict=True)]
        if not all(gap <= most for gap, most in zip(gaps, allowed, strict=True)):
            raise ValueError(
                f"{name}, {precision}: loss {loss:.6f} and gradient norm {norm:.6f}, ours {own[0]:.6f} "
                f"and {own[1]:.6f}; allowed: {allowed} of them; no time is taken"
            )
        found[name] = {"loss": loss, "gradient_norm": norm}
    return found


def time_sides(
    report: Report,
    sides: Mapping[str, Side],
    preset: str,
    precision: str,
    args: argparse.Namespace,
    checked: Mapping[str, Mapping[str, float]],
) -> None:
    taken = seconds_in_turns(
        {name: side.step for name, side in sides.items()}, repeats=args.repeats
    )
    rows = []
    for name, seconds in taken.items():
        times = spread(seconds)
        row: dict[str, object] = {
            "side": name,
            "images_per_second": args.batch / times["median"],
            "milliseconds": 1e3 * times["median"],
            "low_quartile": 1e3 * times["low"],
            "high_quartile": 1e3 * times["high"],
            "ours_is_faster": paired_ratio(seconds, taken[OURS]),
            "n": times["n"],
            **checked[name],
        }
        rows.append(row)
        report.add(task="step", preset=preset, precision=precision, **row, **where(args))
    print_table(f"{preset}, {precision}, batch {args.batch}, T = {args.time_steps}", rows)
    ending = "" if preset == args.preset[0] else f"_{preset.replace('-', '_')}"
    ending += "" if precision == args.precision[0] else f"_{precision}"
    faster = {name: paired_ratio(seconds, taken[OURS]) for name, seconds in taken.items()}
    report.ratios |= library_ratios(faster, ending)


def profile_ours(
    report: Report, side: Side, preset: str, precision: str, args: argparse.Namespace
) -> None:
    steps = min(5, args.repeats)
    rows = profile_step(side.model, side.step, steps=steps, device=args.device)
    print_table(f"our step, {preset}, {precision}", rows)
    for row in rows:
        report.add(
            task="profile", preset=preset, precision=precision, **row, n=steps, **where(args)
        )


def where(args: argparse.Namespace) -> dict[str, object]:
    """What every row says of how it was measured."""
    names = ("device", "threads", "batch", "time_steps")
    return {name: getattr(args, name) for name in names}


if __name__ == "__main__":
    main()
