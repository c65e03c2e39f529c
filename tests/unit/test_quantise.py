"""Fixed point: every number in range, every sum proven to fit, everything else refused by name."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from tiny_models import settled_model, tiny_config, tiny_images

from hardware.errors import BackendError, GraphError
from hardware.ir import LIF, Conv2d, Dense, Input, Readout, Relay, SpikeGraph, one_to_one
from hardware.ir.arithmetic import MAX_ACCUMULATED, shift
from hardware.ir.nodes import LOGIC_ROLES, is_graded
from hardware.ir.reference import run_reference
from hardware.ir.validate import MAX_BIAS, MAX_THRESHOLD
from hardware.lowering import lower
from hardware.passes.balance_delays import balance_delays
from hardware.passes.bounds import current_bounds
from hardware.passes.pipeline import prepare
from hardware.passes.quantise import quantise
from hardware.simulate import to_inputs


def dense(source, target, rows, **fields):
    return Dense(source=source, target=target, weight=np.asarray(rows, dtype=float), **fields)


def build(populations, synapses, *, readout_of=None, **fields):
    readout_of = readout_of or populations[-1].name
    n = int(np.prod(next(p.shape for p in populations if p.name == readout_of)))
    populations = [*populations, Readout(name="out", shape=(n,))]
    return balance_delays(
        SpikeGraph(
            populations={p.name: p for p in populations},
            synapses=(*synapses, one_to_one(readout_of, "out", n)),
            time_steps=2,
            **fields,
        )
    )


def neuron(name="n", n=1, **fields):
    return LIF(name=name, shape=(n,), **fields)


def binary(n, name="data"):
    return Input(name=name, shape=(n,), kind="binary")


def accumulated(graph, trace, name):
    """What each neuron of `name` sums up at each step, synapses and bias, before the shift by 6."""
    population = graph.populations[name]
    samples, steps = trace.spikes[name].shape[:2]
    total = np.zeros((samples * steps, int(np.prod(population.shape))), dtype=np.int64)
    for synapse in graph.incoming(name):
        if synapse.source != name:
            sent = trace.spikes[synapse.source].reshape(samples * steps, -1).astype(np.int64)
            summed = (graph.matrix(synapse).astype(np.int64) @ sent.T).T
            total += shift(summed, synapse.exponent)
    bias = getattr(population, "bias", np.asarray(0))
    return total + np.broadcast_to(bias, population.shape).ravel().astype(np.int64)


def models():
    yield "per step", tiny_config(num_experts=4, top_k=2, depth=2)
    yield "held", tiny_config(num_experts=5, top_k=1, hold="window", time_steps=4)
    yield "dense", tiny_config(routing="dense", num_experts=1, depth=2)
    yield (
        "colour",
        tiny_config(input_channels=3, top_k=1, stem_channels=(4, 6), stem_strides=(1, 2, 2)),
    )


MODELS = dict(models())


@pytest.fixture(
    scope="module", params=[(n, r) for n in MODELS for r in ("relay", "unrolled")], ids=str
)
def pair(request):
    """(float graph, fixed graph, config) of one small model."""
    name, residual = request.param
    graph = lower(settled_model(MODELS[name]), residual=residual)
    return graph, quantise(graph), MODELS[name]


def test_every_number_is_in_range(pair):
    _, fixed, _ = pair
    for synapse in fixed.synapses:
        weight = synapse.weight
        assert weight.dtype.kind == "i"
        assert not (weight % 2).any()
        assert weight.min(initial=0) >= -254
        assert weight.max(initial=0) <= 254
        assert -1 <= synapse.exponent <= 7
    for population in fixed.of_kind(LIF):
        assert population.threshold.min() >= 0
        assert population.threshold.max() <= MAX_THRESHOLD
        assert np.abs(population.bias).max() <= MAX_BIAS


def test_it_is_deterministic_and_leaves_its_input_alone(pair):
    graph, fixed, _ = pair
    before = graph.fingerprint
    assert quantise(graph).fingerprint == fixed.fingerprint
    assert graph.fingerprint == before
    assert fixed.arithmetic == "fixed"
    assert fixed.is_balanced


def test_weights_are_the_nearest_on_their_grid(pair):
    """|mantissa 2^exponent / scale - weight| is at most half a step of the even mantissa."""
    graph, fixed, _ = pair
    for real, whole in zip(graph.synapses, fixed.synapses, strict=False):
        assert (real.source, real.target) == (whole.source, whole.target)
        source, target = fixed.populations[whole.source], fixed.populations[whole.target]
        unit = target.scale / (source.scale if is_graded(source) else 1.0)
        wanted = real.weight * unit
        error = np.abs(whole.weight * 2.0**whole.exponent - wanted)
        # 1e-9: the scale itself is rounded
        assert error.max(initial=0) <= 2.0**whole.exponent * (1 + 1e-9)


def test_scales_are_shared_where_numbers_are_compared_or_summed(pair):
    graph, fixed, _ = pair
    stream = {p.scale for p in fixed.populations.values() if getattr(p, "scale_group", "")}
    assert len(stream) == 1
    for router in graph.gate_limits:
        score, compare = (fixed.populations[f"{router}.{n}"] for n in ("score", "compare"))
        assert score.scale == compare.scale
        assert set(np.unique(compare.bias)) <= {0, 1}
        assert not compare.threshold.any()
        (synapse,) = list(fixed.incoming(compare.name))
        assert sorted(np.unique(synapse.weight)) == [-2, 0, 2]  # times 1/2: the numbers themselves
        assert synapse.exponent == -1
    for population in fixed.populations.values():
        if population.role in LOGIC_ROLES:
            assert population.scale == 2
            assert float(population.threshold) == 2 * float(
                graph.populations[population.name].threshold
            )


@pytest.mark.parametrize("kind", ["noise", "signs"])
def test_sums_never_leave_their_range(pair, kind):
    """Inputs at the very limit, far beyond real images."""
    _, fixed, config = pair
    images = tiny_images(config, 64, seed=5)
    images = images.sign() * 1e3 if kind == "signs" else images * 3
    trace = run_reference(fixed, to_inputs(fixed, images))
    for name, population in fixed.populations.items():
        if not isinstance(population, Input):
            assert np.abs(accumulated(fixed, trace, name)).max() <= MAX_ACCUMULATED, name


@pytest.mark.parametrize("seed", range(5))
def test_the_worst_input_of_a_layer_just_fits(seed):
    """Each neuron gets the signs of its own weights: the proven bound is reached, not passed."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 40))
    weight = rng.normal(size=(n, n)) * rng.uniform(0.1, 10, (n, 1))
    bias = rng.normal(size=n) * 3
    graph = build(
        [Input(name="data", shape=(n,), limit=2.0, bits=8), neuron(n=n, bias=bias)],
        [dense("data", "n", weight)],
    )
    fixed = quantise(graph)
    inputs = np.concatenate([2.0 * np.sign(weight), -2.0 * np.sign(weight)])[:, None]
    sums = np.abs(accumulated(fixed, run_reference(fixed, inputs), "n")).max()
    assert 0.4 * MAX_ACCUMULATED < sums <= MAX_ACCUMULATED


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.5, 0.8, 0.2])
def test_the_worst_spikes_of_a_layer_just_fit(seed, share):
    """Binary sources: all positive weights at once, or all negative ones, but never both."""
    rng = np.random.default_rng(seed)
    weight = rng.uniform(0.5, 1, (6, 40)) * np.where(rng.random((6, 40)) < share, 1, -1)
    fixed = quantise(build([binary(40), neuron(n=6)], [dense("data", "n", weight)]))
    inputs = np.concatenate([weight > 0, weight < 0])[:, None].astype(float)
    sums = np.abs(accumulated(fixed, run_reference(fixed, inputs), "n")).max()
    # The scale is the best of the upper half of what fits; with signs added up it would be less.
    assert 0.49 * MAX_ACCUMULATED < sums <= MAX_ACCUMULATED


def test_sums_through_relays_are_bounded_too():
    """Relays pass sums on: 8 relays of up to 4 each may add up to 32 in one neuron."""
    rng = np.random.default_rng(0)
    populations = [Input(name="data", shape=(4,), limit=4.0)]
    synapses = []
    for i in range(8):
        populations.append(Relay(name=f"r{i}", shape=(4,), scale_group="s"))
        synapses += [
            dense("data", f"r{i}", rng.uniform(-1, 1, (4, 4))),
            one_to_one(f"r{i}", "n", 4),
        ]
    fixed = quantise(build([*populations, neuron(n=4, scale_group="s")], synapses))
    assert len({fixed.populations[n].scale for n in ("r0", "r7", "n")}) == 1
    inputs = np.sign(rng.normal(size=(500, 1, 4))) * 4.0
    trace = run_reference(fixed, inputs)
    sums = [np.abs(accumulated(fixed, trace, name)).max() for name in ("r0", "n")]
    assert max(sums) <= MAX_ACCUMULATED


@pytest.mark.parametrize("exponent", [-1, 0, 2])
@pytest.mark.parametrize("active", [1, 2, 3])
def test_bounds_are_the_extremes_over_all_messages(active, exponent):
    """Against every message there is: 3 binary neurons, 3 experts of 2 neurons, one graded input."""
    rng = np.random.default_rng(10 * active + exponent)
    fields = {"target": "n", "exponent": exponent}
    weights = {"free": rng.integers(-9, 10, (4, 3)), "graded": rng.integers(-9, 10, (4, 1))}
    weights |= {f"h{e}": rng.integers(-9, 10, (4, 2)) for e in range(3)}
    incoming = []
    for name, weight in weights.items():
        expert = ("router", int(name[1])) if name.startswith("h") else None
        incoming.append(Dense(source=name, weight=2 * weight, expert=expert, **fields))
    sources = {n: Input(name=n, shape=(w.shape[1],), kind="binary") for n, w in weights.items()}
    graph = SpikeGraph(
        populations={**sources, "n": Readout(name="n", shape=(4,), bias=np.zeros(4, int))},
        synapses=tuple(incoming),
        time_steps=1,
        arithmetic="fixed",
        gate_limits={"router": active},
    )
    messages = {n: (np.zeros(w.shape[1]), np.ones(w.shape[1])) for n, w in weights.items()}
    messages["graded"] = (np.array([-5.0]), np.array([3.0]))
    low, high = current_bounds(graph, "n", incoming, messages, fixed=True)

    sums = []
    for free in itertools.product([0, 1], repeat=3):
        for graded in (-5, 3):
            for hidden in itertools.product([(0, 0), (0, 1), (1, 0), (1, 1)], repeat=3):
                if sum(any(h) for h in hidden) <= active:
                    sent = {"free": free, "graded": [graded]}
                    sent |= {f"h{e}": h for e, h in enumerate(hidden)}
                    sums.append(
                        sum(shift(2 * weights[n] @ np.array(v), exponent) for n, v in sent.items())
                    )
    assert low.tolist() == np.min(sums, axis=0).tolist()
    assert high.tolist() == np.max(sums, axis=0).tolist()


def gated(limit, role="gate"):
    """Four experts that contribute up to 8000 each; `limit` of them can be active at once."""
    gate = replace(neuron("gate", 4), membrane_decay=0.0, threshold=np.asarray(0.5), role=role)
    populations = [binary(4), gate, *(neuron(f"h{e}", 8) for e in range(4)), neuron()]
    synapses = [dense("data", "gate", np.eye(4))]
    for e in range(4):
        weight = np.tile(2.0 * np.eye(4)[e], (8, 1))
        synapses.append(dense("gate", f"h{e}", weight, expert=("router", e)))
        synapses.append(dense(f"h{e}", "n", np.full((1, 8), 1000.0), expert=("router", e)))
    return build(populations, synapses, readout_of="n", gate_limits={"router": limit})


def test_only_k_experts_count_in_the_bound():
    """One of four active experts allows a scale four times as fine as all four."""
    scales = {k: quantise(gated(k)).populations["n"].scale for k in (1, 2, 4)}
    assert scales[1] == pytest.approx(4 * scales[4], rel=0.05)
    assert scales[2] == pytest.approx(2 * scales[4], rel=0.05)
    fixed = quantise(gated(2))
    trace = run_reference(fixed, np.array([[[1.0, 1, 0, 0]], [[0, 1, 0, 1]]]))
    sums = accumulated(fixed, trace, "n")
    assert 0.4 * MAX_ACCUMULATED < sums.max() <= MAX_ACCUMULATED


def test_a_mark_without_a_gate_before_it_counts_in_full():
    scale = quantise(gated(1, role="neuron")).populations["n"].scale
    assert scale == pytest.approx(quantise(gated(4)).populations["n"].scale, rel=0.05)


def test_a_graph_in_fixed_point_that_could_wrap_is_refused():
    """Whoever wrote the integers: before a run by the bound, and in a run by what is accumulated."""
    fixed = quantise(gated(2))
    heavy = fixed.with_(
        synapses=[
            replace(s, weight=np.full_like(s.weight, 254), exponent=7) if s.target == "n" else s
            for s in fixed.synapses
        ]
    )
    with pytest.raises(GraphError, match=r"'n': its accumulated input may reach .* beyond"):
        prepare(heavy)
    with pytest.raises(BackendError, match=r"'n' accumulated 260,096, beyond \+-131,071"):
        run_reference(heavy, np.array([[[1.0, 0, 0, 0]], [[0, 0, 0, 1]]]))


@pytest.mark.parametrize("named", [False, True])
def test_a_large_bias_goes_through_the_constant_input_exactly(named):
    """What does not fit in 12 bits is split into a coarse part and a rest; nothing is lost."""
    bias = np.array([1000.0, -700.0, 0.25, 999.9])
    populations = [binary(4), neuron(n=4, threshold=np.asarray(500.0), bias=bias)]
    synapses = [dense("data", "n", 10.0 * np.eye(4))]
    if named:  # a constant input that is there already is used
        populations.insert(1, Input(name="one", shape=(2,), kind="constant"))
        synapses.append(dense("one", "n", np.ones((4, 2))))
    fixed = quantise(build(populations, synapses))
    name = "one" if named else "constant"
    assert isinstance(fixed.populations[name], Input)
    assert ("constant" in fixed.populations) is not named
    n = fixed.populations["n"]
    trace = run_reference(fixed, np.zeros((1, 1, 4)))
    expected = np.rint(bias * n.scale).astype(int)
    if named:
        expected = expected + 2 * np.rint(n.scale / 2).astype(int) * 2
    got = accumulated(fixed, trace, "n")[0]
    assert np.abs(n.bias).max() <= MAX_BIAS
    assert np.abs(expected).max() > MAX_BIAS
    # with `named`, the constant's own weights are rounded to the grid, one even step each at most
    assert np.abs(got - expected).max() <= (
        2 * 2 ** max(s.exponent for s in fixed.synapses) if named else 0
    )
    assert trace.spikes["n"][0, :, :].tolist() == [[True, False, False, True]] * 2


def test_fixed_and_float_agree_where_rounding_cannot_matter():
    """Membranes are multiples of 1/8, half a step from the threshold; three weights round by less."""
    rng = np.random.default_rng(3)
    graph = build(
        [
            binary(3),
            neuron(n=6, threshold=np.asarray(1 + 1 / 16), bias=rng.integers(-2, 3, 6) / 4),
        ],
        [dense("data", "n", rng.integers(-6, 7, (6, 3)) / 4)],
    )
    inputs = rng.integers(0, 2, (200, 2, 3)).astype(float)
    real, whole = (run_reference(g, inputs) for g in (graph, quantise(graph)))
    assert 0.05 < real.spikes["n"].mean() < 0.95
    assert np.array_equal(real.spikes["n"], whole.spikes["n"])


def test_clipped_inputs():
    """A graded value beyond the limit is clipped to the largest integer of its bits."""
    graph = build(
        [Input(name="data", shape=(1,), limit=2.0, bits=4), neuron()], [dense("data", "n", [[1]])]
    )
    fixed = quantise(graph)
    assert fixed.populations["data"].scale == 3.5
    sent = run_reference(fixed, np.array([[[9.0]], [[-9.0]], [[2.0]], [[0.2]], [[-0.1]]]))
    assert sent.spikes["data"][:, 0, 0].tolist() == [7, -7, 7, 1, 0]


# ---- what is refused


def or_of(n, weight):
    gate = LIF(name="any", shape=(1,), membrane_decay=0.0, threshold=np.asarray(0.5), role="or")
    return build([binary(n), gate], [dense("data", "any", np.full((1, n), weight))])


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (
            lambda: build(
                [binary(1), neuron(threshold=np.asarray(1e9))], [dense("data", "n", [[1]])]
            ),
            "synapse 'data' -> 'n': all its weights round to zero",
        ),
        (
            lambda: build([binary(2), neuron()], [dense("data", "n", [[1e9, 0]]), *tiny_extra()]),
            "synapse 'data' -> 'n': all its weights round to zero",
        ),
        (
            lambda: build([binary(300_000), neuron()], [dense("data", "n", np.ones((1, 300_000)))]),
            "'n'",
        ),
        (lambda: or_of(2, 0.25), "synapse 'data' -> 'any': .*role 'or' needs whole weights"),
        (lambda: or_of(2, 201.0), "synapse 'data' -> 'any': .*role 'or' needs whole weights"),
        (lambda: or_of(600, 127.0), "population 'any'"),
        (
            lambda: build(
                [binary(1), Relay(name="r", shape=(1,))],
                [dense("data", "r", [[1]]), dense("r", "r", [[0.5]])],
            ),
            "relay 'r' has a loop onto itself: its sum has no bound",
        ),
        (
            lambda: build(
                [binary(1), Relay(name="r", shape=(1,)), neuron()],
                [dense("r", "n", [[0.5]])],
            ),
            "population 'r' has no inputs to derive a scale from",
        ),
    ],
)
def test_what_cannot_be_quantised_is_refused_by_name(graph, message):
    with pytest.raises(GraphError, match=message):
        quantise(graph())


def tiny_extra():
    """A second synapse onto the same neuron, 10^9 times weaker than the first."""
    return [dense("data", "n", [[0, 1e-3]])]


def test_a_fixed_graph_is_refused():
    fixed = quantise(build([binary(1), neuron()], [dense("data", "n", [[2]])]))
    with pytest.raises(GraphError, match="quantise needs a float graph"):
        quantise(fixed)


def test_convolutions_are_bounded_per_position():
    """At the border fewer taps exist; the bound is that of the inner positions."""
    weight = np.ones((1, 1, 3, 3))
    graph = build(
        [Input(name="data", shape=(4, 4, 1), kind="binary"), LIF(name="n", shape=(4, 4, 1))],
        [Conv2d(source="data", target="n", weight=weight, padding=(1, 1))],
    )
    fixed = quantise(graph)
    trace = run_reference(fixed, np.ones((1, 1, 4, 4, 1)))
    sums = accumulated(fixed, trace, "n")[0].reshape(4, 4)
    assert sums[1, 1] * 4 == sums[0, 0] * 9
    assert 0.4 * MAX_ACCUMULATED < sums.max() <= MAX_ACCUMULATED


@pytest.mark.parametrize(("decay", "units"), [(1 / 3, 1365), (0.9, 3686), (1e-5, 0), (0.5, 2048)])
def test_decays_become_multiples_of_the_targets_step(decay, units):
    """As networks of other frameworks have them."""
    graph = build([binary(1), neuron(membrane_decay=decay)], [dense("data", "n", [[2]])])
    assert quantise(graph).populations["n"].membrane_decay == units / 4096
