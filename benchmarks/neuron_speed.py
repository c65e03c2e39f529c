"""How fast is the neuron? LIF over all steps, forward, backward and both, against other libraries.

Ours (`spikingmoe.layers.LIF`) against snnTorch's stock `Leaky` stepped in Python, SpikingJelly's
multi-step LIF (as it comes, and under `torch.compile`) and a plain copy of the memory, which nothing
that reads currents and writes spikes can beat: `x.clone()` forward and `gradient.clone()` backward.
All sides run in one process, in turns, on the same input. Before any time is taken they must give
the same spikes, on float32 random currents one by one, in bfloat16 (where libraries round membranes
differently) on currents whose membranes are exact; and the same gradients up to rounding.

Ratios are those of the first size, forward plus backward, in float32: `vs_snntorch`,
`vs_spikingjelly` (the fastest form of it; `vs_spikingjelly_eager` is as it comes) and `vs_copy`
(below 1: the share of a copy's speed); `..._bf16` and `..._forward` are named so.

    python benchmarks/neuron_speed.py --threads 2 --json benchmarks/results/neuron_speed_cpu.json
    python benchmarks/neuron_speed.py --device cuda --json benchmarks/results/neuron_speed_cuda.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script: the folder of `benchmarks`

import torch
import torch._functorch.config as compiled_gradients
from torch import Tensor, nn

from benchmarks.harness import (
    PACKAGES,
    Report,
    paired_ratio,
    print_table,
    seconds_in_turns,
    spread,
    versions,
)
from benchmarks.neurons import SpikingJellyLIF, competitors, exact_currents, library_ratios
from spikingmoe.kernels import keep_freed_memory
from spikingmoe.layers import LIF

SIZES = ("4x64x128x16x16", "8x16x128x16x16", "16x8x128x16x16", "4x64x64x96")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
OURS, DETACHED, COPY = "ours", "ours, detached reset", "copy"
PASSES = ("forward", "backward", "both")
#: Largest difference of two gradients, relative to the largest gradient: some ten roundings.
TOLERANCE = {"fp32": 1e-5, "bf16": 4e-2}
EXACT_STEPS = 4  # for which `exact_currents` are exact in bfloat16


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    torch.set_num_threads(args.threads)
    keep_freed_memory()  # all sides gain: large tensors are not mapped anew each time
    compiled_gradients.donated_buffer = False  # a compiled backward is run more than once
    sides = make_sides(compiled=args.compiled)
    extra = ["spikingjelly"] if "spikingjelly" in sides else []
    report = Report(seeds=[args.seed], versions=versions([*PACKAGES, *extra]))
    for size in args.sizes:
        for dtype in args.dtypes:
            checked = check_sides(sides, size, dtype, args)
            time_sides(report, sides, size, dtype, args, checked)
            print_size(report, size, dtype)
    add_ratios(report, "x".join(map(str, args.sizes[0])), args.dtypes)
    report.print_end()
    if args.json:
        report.write(args.json)


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes",
        nargs="+",
        default=list(SIZES),
        metavar="TxBx...",
        help="steps, then any other axes; the first is the headline; default %(default)s",
    )
    parser.add_argument(
        "--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES), help="default %(default)s"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default cpu")
    parser.add_argument("--threads", type=int, default=2, help="of torch; default %(default)s")
    parser.add_argument("--repeats", type=int, default=9, help="per side; default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument(
        "--no-compile",
        dest="compiled",
        action="store_false",
        help="leave out SpikingJelly under torch.compile (compiling takes up to a minute per size)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the results there")
    args = parser.parse_args(argv)
    for name in ("threads", "repeats"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} {getattr(args, name)} must be at least 1")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU here; use --device cpu")
    try:
        args.sizes = [tuple(int(n) for n in size.split("x")) for size in args.sizes]
    except ValueError:
        parser.error(f"--sizes {' '.join(args.sizes)}: use whole numbers, such as 4x64x128")
    for size in args.sizes:
        if len(size) < 2 or min(size) < 1:
            parser.error(
                f"--sizes {'x'.join(map(str, size))}: use T and B at least, 1 or more each"
            )
    return args


def make_sides(*, compiled: bool) -> dict[str, nn.Module]:
    """{side: neuron}, ours first."""
    others = {name: make() for name, make in competitors(compiled=compiled).items()}
    return {OURS: LIF(), DETACHED: LIF(detach_reset=True), **others}


def random_currents(size: tuple[int, ...], args: argparse.Namespace) -> Tensor:
    """(T, ...) normal currents of mean 0.3: about a fifth of the neurons spikes."""
    generator = torch.Generator().manual_seed(args.seed)
    return (torch.randn(size, generator=generator) + 0.3).to(args.device)


def check_sides(
    sides: Mapping[str, nn.Module], size: tuple[int, ...], dtype: str, args: argparse.Namespace
) -> dict[str, dict[str, object]]:
    """What each side was found to give, compared with ours.

    Raises:
        ValueError: a side has other spikes, or gradients beyond the tolerance.
    """
    if dtype == "bf16":
        shape = (min(size[0], EXACT_STEPS), *size[1:])
        currents = exact_currents(shape, torch.Generator().manual_seed(args.seed)).to(args.device)
    else:
        currents = random_currents(size, args)
    generator = torch.Generator().manual_seed(args.seed + 1)
    weights = torch.randn(currents.shape, generator=generator).to(args.device)
    found: dict[str, dict[str, object]] = {}
    own: tuple[Tensor, Tensor] | None = None
    for name, neuron in sides.items():
        leaf = currents.to(DTYPES[dtype], copy=True).requires_grad_()
        spikes = neuron(leaf)
        spikes.backward(weights.to(spikes.dtype))
        assert leaf.grad is not None
        given = spikes.detach() > 0.5, leaf.grad.float()
        own = own or given
        differing = int((given[0] != own[0]).sum())
        gap = float((given[1] - own[1]).abs().max() / own[1].abs().max())
        detached = name == DETACHED  # another gradient on purpose
        if differing or (gap > TOLERANCE[dtype] and not detached):
            raise ValueError(
                f"{name}, {dtype}, {size}: {differing} spikes differ from ours, gradients by {gap:.1e} "
                f"of the largest (allowed: 0 and {TOLERANCE[dtype]:.0e}); no time is taken"
            )
        found[name] = {
            "spikes_compared": given[0].numel(),
            "spikes_differing": differing,
            "gradient_difference": None if detached else gap,
        }
    return found


def passes_of(
    neuron: nn.Module | None, currents: Tensor, device: str
) -> dict[str, Callable[[], object]]:
    """{pass: runs it}; a copy of the memory where there is no neuron."""
    gradient = torch.ones_like(currents)

    def waited(call: Callable[[], object]) -> Callable[[], object]:
        if device != "cuda":
            return call

        def then_wait() -> None:
            call()
            torch.cuda.synchronize()

        return then_wait

    if neuron is None:
        calls: dict[str, Callable[[], object]] = {
            "forward": currents.clone,
            "backward": gradient.clone,
            "both": lambda: (currents.clone(), gradient.clone()),
        }
    else:
        leaf = currents.clone().requires_grad_()
        spikes = neuron(leaf)
        weights = gradient.to(spikes.dtype)
        calls = {
            "forward": lambda: neuron(leaf),
            "backward": lambda: torch.autograd.grad(spikes, leaf, weights, retain_graph=True),
            "both": lambda: torch.autograd.grad(neuron(leaf), leaf, weights),
        }
    return {name: waited(call) for name, call in calls.items()}


def time_sides(
    report: Report,
    sides: Mapping[str, nn.Module],
    size: tuple[int, ...],
    dtype: str,
    args: argparse.Namespace,
    checked: Mapping[str, Mapping[str, object]],
) -> None:
    currents = random_currents(size, args).to(DTYPES[dtype])
    calls = {
        name: passes_of(neuron, currents, args.device)
        for name, neuron in {**sides, COPY: None}.items()
    }
    for which in PASSES:
        taken = seconds_in_turns(
            {name: passes[which] for name, passes in calls.items()}, repeats=args.repeats
        )
        for name, seconds in taken.items():
            times = spread(seconds)
            report.add(
                size="x".join(map(str, size)),
                dtype=dtype,
                measured=which,
                side=name,
                milliseconds=1e3 * times["median"],
                low_quartile=1e3 * times["low"],
                high_quartile=1e3 * times["high"],
                ours_is_faster=paired_ratio(seconds, taken[OURS]),
                n=times["n"],
                device=args.device,
                threads=args.threads,
                implementation=implementation(sides.get(name), args.device),
                **checked.get(name, {}),
            )


def print_size(report: Report, size: tuple[int, ...], dtype: str) -> None:
    """A line per side: its milliseconds, and how many times ours is faster forward and backward."""
    key = ("x".join(map(str, size)), dtype)
    rows = [r for r in report.rows if (r["size"], r["dtype"]) == key]
    lines: dict[object, dict[str, object]] = {}
    for which in PASSES:
        for row in (r for r in rows if r["measured"] == which):
            line = lines.setdefault(row["side"], {"side": row["side"]})
            line[f"{which}, ms"] = row["milliseconds"]
            if which == "both":
                line["ours is faster, both"] = row["ours_is_faster"]
                line["spikes compared"] = row.get("spikes_compared")
                line["differ"] = row.get("spikes_differing")
    print_table(", ".join(key), list(lines.values()))


def implementation(neuron: nn.Module | None, device: str) -> str | None:
    """What SpikingJelly chose to run; None for the others."""
    if not isinstance(neuron, SpikingJellyLIF):
        return None
    return neuron.implementation(torch.device(device))


def add_ratios(report: Report, headline: str, dtypes: Sequence[str]) -> None:
    """How many times ours is faster at the headline size."""
    for dtype in dtypes:
        for which, suffix in (("both", ""), ("forward", "_forward")):
            faster = {
                str(row["side"]): float(str(row["ours_is_faster"]))
                for row in report.rows
                if (row["size"], row["dtype"], row["measured"]) == (headline, dtype, which)
            }
            ending = suffix + ("" if dtype == "fp32" else f"_{dtype}")
            report.ratios |= library_ratios(faster, ending)
            if COPY in faster:
                report.ratios[f"vs_copy{ending}"] = faster[COPY]


if __name__ == "__main__":
    main()
