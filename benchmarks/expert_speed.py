"""Does a mixture of experts cost what the chosen experts cost?

A training step (forward and backward, no optimiser) of the mixture's experts, with K of E chosen,
against the dense layer of one expert's size on the same tokens, and against computing all E experts.
Three kinds of gates: one choice per image, one per token held for the window, one per token and step.

`vs_all_experts` takes the fastest of three ways of computing all of them: the masked form, the
grouped form with every gate open, and E dense layers, one after the other. With one thread a last
table has the crossover between the forms, from which the constants in
`spikingmoe.functional.dispatch_cost` come.

    python benchmarks/expert_speed.py --json benchmarks/results/expert_speed.json
    python benchmarks/expert_speed.py --threads 1 --clock cpu --json \
        benchmarks/results/expert_speed_1thread.json
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

import torch
from harness import Report, paired_ratio, seconds_in_turns, spread
from torch import Tensor, nn

from spikingmoe.config import ModelConfig
from spikingmoe.functional.dispatch import plan_dispatch
from spikingmoe.functional.dispatch_cost import masked_is_faster
from spikingmoe.layers.expert import Experts, SpikingMLP
from spikingmoe.layers.moe import DenseMLP, MixtureOfExperts

KINDS = ("image", "held", "step")
MASKED_LIMIT = 2_000_000  # hidden neurons * rows of the masked form in the crossover table


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    report = Report(seeds=[args.seed])
    torch.manual_seed(args.seed)
    time_layers(report, args)
    report.print("Training step of the experts", task="layer")
    time_routed(report, args)
    report.print("The same with neuron and router", task="layer with router")
    measure_memory(report, args)
    report.print("Memory held for the backward pass", task="memory")
    if args.threads == 1:
        time_crossover(report, args)
        report.print("Masked or grouped: which is faster", task="crossover")
    report.print_end()
    if args.json:
        report.write(args.json)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = {"experts": 16, "top-k": 1, "steps": 4, "batch": 32, "tokens": 64}
    for name, size in {**sizes, "dim": 128, "width": 512}.items():
        parser.add_argument(f"--{name}", type=int, default=size, help="default %(default)s")
    parser.add_argument("--threads", type=int, default=2, help="of torch; default %(default)s")
    parser.add_argument("--repeats", type=int, default=9, help="per side; default %(default)s")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="wall time, or this process's processor time: steadier on a busy machine, but only "
        "meaningful with --threads 1; default %(default)s",
    )
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument("--json", metavar="FILE", help="write the results there")
    parser.add_argument("--quick", action="store_true", help="small sizes, few repeats: a trial")
    args = parser.parse_args()
    for name in ("experts", "steps", "batch", "tokens", "dim", "width", "threads"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} {getattr(args, name)} must be at least 1")
    if not 1 <= args.top_k <= args.experts:
        parser.error(f"--top-k {args.top_k} must lie in 1..{args.experts} (--experts)")
    if args.repeats < 2:
        parser.error(f"--repeats {args.repeats} must be at least 2")
    if args.clock == "cpu" and args.threads != 1:
        parser.error(
            f"--clock cpu counts waiting threads as work; use --threads 1, not {args.threads}"
        )
    if args.quick:
        args.batch, args.repeats = 4, 3
    args.timer = time.perf_counter if args.clock == "wall" else time.process_time
    return args


def make_gates(kind: str, shape: tuple[int, int, int, int], k: int) -> Tensor:
    """(T, B, N, E): k random experts per image, per token, or per token and step."""
    steps, batch, tokens, experts = shape
    own = (steps if kind == "step" else 1, batch, 1 if kind == "image" else tokens, experts)
    mask = torch.zeros(own).scatter_(-1, torch.rand(own).topk(k).indices, 1.0)
    return mask.expand(shape).clone().requires_grad_()


def make_config(experts: int, dim: int, width: int, **options: object) -> ModelConfig:
    sizes = {"num_experts": experts, "embed_dim": dim, "expert_width": width, "num_heads": 1}
    base = ModelConfig(**sizes, **options)  # type: ignore[arg-type]
    assert base.gate_gradient != "full", "grouped dispatch has no gradient of closed gates"
    return base


def training_step(
    module: nn.Module, inputs: tuple[Tensor, ...], output: Callable = lambda out: out
) -> Callable[[], None]:
    """Forward and backward, from gradients that are there already, to fresh ones."""
    weight = torch.randn(inputs[0].shape)
    leaves = [*module.parameters(), *(i for i in inputs if i.requires_grad)]

    def step() -> None:
        for leaf in leaves:
            leaf.grad = None
        output(module(*inputs)).backward(weight)

    return step


def expert_step(experts: Experts, dispatch: str, x: Tensor, gates: Tensor) -> Callable[[], None]:
    step = training_step(experts, (x, gates), lambda out: out[0])

    def with_dispatch() -> None:
        experts.dispatch = dispatch  # type: ignore[assignment]
        step()

    return with_dispatch


def spikes_like(args: argparse.Namespace) -> Tensor:
    """(T, B, N, D) of 0 and 1; a quarter of the neurons spikes."""
    shape = (args.steps, args.batch, args.tokens, args.dim)
    return (torch.rand(shape) < 0.25).float().requires_grad_()


def time_layers(report: Report, args: argparse.Namespace) -> None:
    config = make_config(args.experts, args.dim, args.width, gate_gradient="chosen")
    experts, dense = Experts(config), SpikingMLP(config, args.width)
    x = spikes_like(args)
    shape = (*x.shape[:3], args.experts)
    gates = {kind: make_gates(kind, shape, args.top_k) for kind in KINDS}
    everything = torch.ones(shape).requires_grad_()
    sides = {"dense": training_step(dense, (x,))}
    sides |= {kind: expert_step(experts, "auto", x, gates[kind]) for kind in KINDS}
    sides["all, masked"] = expert_step(experts, "masked", x, gates["held"])
    sides["all, grouped"] = expert_step(experts, "grouped", x, everything)
    taken = seconds_in_turns(sides, repeats=args.repeats, clock=args.timer)
    taken["all, as dense layers"] = [args.experts * seconds for seconds in taken["dense"]]
    add_sides(report, "layer", taken, args, gates)
    everyone = [name for name in taken if name.startswith("all")]
    best = min(everyone, key=lambda name: statistics.median(taken[name]))
    for kind in KINDS:
        report.ratios[f"vs_dense_{kind}"] = paired_ratio(taken["dense"], taken[kind])
        report.ratios[f"vs_all_experts_{kind}"] = paired_ratio(taken[best], taken[kind])
        report.ratios[f"vs_masked_{kind}"] = paired_ratio(taken["all, masked"], taken[kind])
    for name in ("vs_dense", "vs_all_experts"):  # the claims are about gates that are kept
        report.ratios[name] = min(report.ratios[f"{name}_{kind}"] for kind in ("image", "held"))


def time_routed(report: Report, args: argparse.Namespace) -> None:
    """LIF, router and experts against LIF and dense layer, on the same stream."""
    options = {
        "image": {"route_by": "image", "hold": "window", "hold_step": 0},
        "held": {"hold": "window", "hold_step": 0},
        "step": {},
    }
    shape = (args.steps, args.batch, args.tokens, args.dim)
    stream = torch.randn(shape).requires_grad_()
    prompt = (torch.rand(args.steps, args.batch, 16) < 0.25).float().requires_grad_()
    base = make_config(args.experts, args.dim, args.width, gate_gradient="chosen")
    dense = DenseMLP(base)
    sides = {"dense": training_step(dense, (stream,), lambda out: out[1])}
    for kind in KINDS:
        config = make_config(
            args.experts,
            args.dim,
            args.width,
            gate_gradient="chosen",
            top_k=args.top_k,
            time_steps=args.steps,
            **options[kind],
        )
        mixture = MixtureOfExperts(config)
        sides[kind] = training_step(mixture, (stream, prompt), lambda out: out[1])
    taken = seconds_in_turns(sides, repeats=args.repeats, clock=args.timer)
    add_sides(report, "layer with router", taken, args, {})
    for kind in KINDS:
        ratio = paired_ratio(taken["dense"], taken[kind])
        report.ratios[f"vs_dense_with_router_{kind}"] = ratio


def add_sides(
    report: Report,
    task: str,
    taken: Mapping[str, list[float]],
    args: argparse.Namespace,
    gates: Mapping[str, Tensor],
) -> None:
    for side, seconds in taken.items():
        times = spread(seconds)
        more: dict[str, object] = {}
        if side in gates:
            plan = plan_dispatch(gates[side].detach().flatten(1, 2) > 0.5)
            more["membrane_slots_per_row"] = plan.num_slots / len(plan.rows)
        report.add(
            task=task,
            side=side,
            milliseconds=1e3 * times["median"],
            low_quartile=1e3 * times["low"],
            high_quartile=1e3 * times["high"],
            time_relative_to_dense=1 / paired_ratio(taken["dense"], seconds),
            n=times["n"],
            threads=args.threads,
            clock=args.clock,
            **more,
        )


def measure_memory(report: Report, args: argparse.Namespace) -> None:
    config = make_config(args.experts, args.dim, args.width, gate_gradient="chosen")
    experts, dense = Experts(config), SpikingMLP(config, args.width)
    x = spikes_like(args)
    shape = (*x.shape[:3], args.experts)
    base = saved_bytes(lambda: dense(x), dense)
    report.add(task="memory", side="dense", mib=base / 2**20, relative_to_dense=1.0, n=1)
    for dispatch, kind in [*(("grouped", kind) for kind in KINDS), ("masked", "held")]:
        gates = make_gates(kind, shape, args.top_k)
        experts.dispatch = dispatch  # type: ignore[assignment]
        size = saved_bytes(lambda gates=gates: experts(x, gates)[0], experts)
        side = f"{dispatch}, {kind}"
        mib, relative = size / 2**20, size / base
        report.add(task="memory", side=side, mib=mib, relative_to_dense=relative, n=1)
        if (dispatch, kind) == ("grouped", "held"):
            grouped = size
    report.ratios["memory_vs_dense"] = base / grouped
    report.ratios["memory_vs_masked"] = size / grouped


def saved_bytes(forward: Callable[[], Tensor], module: nn.Module) -> int:
    """Bytes that one forward pass keeps for the backward pass beside the parameters, each once."""
    storages: dict[int, int] = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    kept: list[Tensor] = []  # or a freed address would be taken for another storage

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(size for address, size in storages.items() if address not in own)


def crossover_cases(quick: bool) -> list[tuple[int, int, int, tuple[int, int], str]]:
    """(experts, top_k, images, (D, F), gates) around the sizes where the forms are equally fast."""
    layers = [(16, 32), (32, 64), (64, 128), (128, 512)]
    cases = [
        (experts, k, images, layer, kind)
        for layer in layers
        for experts in (2, 4, 8, 16, 64)
        for k in ((1, 2, experts) if experts <= 4 else (1, 2))
        for images in (1, 2, 4, 8, 32)
        for kind in ("held", "step")
        if 64 * images * experts * layer[1] <= MASKED_LIMIT
    ]
    cases = list(dict.fromkeys(cases))
    return cases[:: len(cases) // 8] if quick else cases


def time_crossover(report: Report, args: argparse.Namespace) -> None:
    """Both forms of each case, in processor time: a busy machine must not move the rule."""
    steps, tokens = 4, 16
    for e, k, images, (d, f), kind in crossover_cases(args.quick):
        experts = Experts(make_config(e, d, f, top_k=k, gate_gradient="chosen"))
        x = (torch.rand(steps, images, tokens, d) < 0.25).float().requires_grad_()
        gates = make_gates(kind, (steps, images, tokens, e), k)
        sides = {form: expert_step(experts, form, x, gates) for form in ("masked", "grouped")}
        taken = seconds_in_turns(sides, repeats=5, clock=time.process_time)
        masked, grouped = (statistics.median(taken[form]) for form in sides)
        rows = steps * images * tokens
        by_rule = masked if masked_is_faster(rows=rows, experts=e, elements=d + f) else grouped
        report.add(
            task="crossover",
            experts=e,
            top_k=k,
            rows=rows,
            dim=d,
            width=f,
            gates=kind,
            masked_cpu_ms=1e3 * masked,
            grouped_cpu_ms=1e3 * grouped,
            faster="masked" if masked < grouped else "grouped",
            rule="masked" if by_rule is masked else "grouped",
            slower_than_best=by_rule / min(masked, grouped),
            n=5,
        )
    losses = [r["slower_than_best"] for r in report.rows if r["task"] == "crossover"]
    report.ratios["rule_vs_best_median"] = 1 / statistics.median(losses)  # type: ignore[type-var]
    report.ratios["rule_vs_best_worst"] = 1 / max(losses)  # type: ignore[type-var]


if __name__ == "__main__":
    main()
