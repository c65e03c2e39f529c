"""Reading a mixture: numbers worked out by hand, and naive loops over what the model answered."""

import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from tiny_models import settled_model, tiny_config, tiny_images

from spikingmoe.analysis import Information, MixtureReading, read_mixture
from spikingmoe.analysis.measures import (
    class_information,
    entropy_bits,
    information,
    load_entropy,
    mutual_information,
    shares,
)
from spikingmoe.analysis.pictures import class_png, load_png, region_png, steps_png
from spikingmoe.analysis.tally import RoutingTally, rolled_sums
from spikingmoe.data.image_data import Split

VARIANTS = {
    "top_k": {"top_k": 2},
    "image": {"route_by": "image"},
    "window": {"hold": "window", "hold_step": 1},
    "threshold": {"routing": "threshold"},
    "dynamic": {"routing": "dynamic"},
    "noisy": {"routing": "noisy_top_k"},
    "hierarchical": {"routing": "hierarchical", "num_experts": 4, "num_groups": 2},
    "expert_choice": {"routing": "expert_choice"},
    "hash": {"routing": "hash", "prompt": "none"},
    "chain": {"chain": "depth", "chain_length": 2},
    "chain in time": {"chain": "time"},
    "alternating": {"depth": 2, "mixture_every": 2},
    "feedback": {"depth": 2, "cortical_feedback": True},
    "stages": {"early_depths": (1,), "stem_strides": (1, 1)},
    "shared": {"shared_experts": 1},
    "grouped": {"dispatch": "grouped", "gate_gradient": "chosen"},
}
SAMPLES = 70  # more than one batch


def split_of(config, samples=SAMPLES):
    labels = torch.arange(samples) % config.num_classes
    return Split(tiny_images(config, samples), labels)


# ---- entropy and information


def test_entropy_by_hand():
    assert entropy_bits(np.array([5, 5, 5, 5])) == pytest.approx(2.0)
    assert entropy_bits(np.array([8, 0])) == 0.0
    assert entropy_bits(np.array([1, 1, 2])) == pytest.approx(1.5)
    assert entropy_bits(np.zeros(3)) == 0.0
    assert load_entropy(np.array([1.0, 1.0, 2.0, 0.0])) == pytest.approx(0.75)


def test_mutual_information_by_hand():
    assert mutual_information(np.diag([4, 4])) == pytest.approx(1.0)
    assert mutual_information(np.outer([1, 2, 3], [4, 1])) == pytest.approx(0.0, abs=1e-12)
    # H(A) = H(B) = 1, H(A, B) = 1 + H(1/4) with H(1/4) = 2 - 0.75 log2(3)
    expected = 1 - (2 - 0.75 * math.log2(3))
    assert mutual_information(np.array([[3, 1], [1, 3]])) == pytest.approx(expected)


def test_shares_say_where_nothing_was_counted():
    got = shares(np.array([[1, 3], [0, 0]]))
    assert got[0].tolist() == [0.25, 0.75]
    assert np.isnan(got[1]).all()


def test_information_against_shuffled_tables():
    flat, diagonal = np.full((2, 2), 2.0), np.diag([4.0, 4.0])
    found = information(diagonal, [flat, flat, diagonal])
    assert found.bits == pytest.approx(1.0)
    assert found.chance_bits == pytest.approx(1 / 3)
    assert found.excess_bits == pytest.approx(2 / 3)
    assert found.share == pytest.approx(2 / 3)
    assert found.p_value == pytest.approx(2 / 4)
    assert found.shuffles == 3
    assert information(flat, [flat]).p_value == 1.0
    with pytest.raises(ValueError, match="use 1 shuffle or more"):
        information(flat, [])


def test_specialisation_is_found():
    labels = np.arange(40) % 2
    counts = 12.0 * np.eye(2)[labels]
    found = class_information(counts, labels, 2, shuffles=99, seed=0)
    assert found.bits == pytest.approx(1.0)
    assert found.share > 0.9
    assert found.p_value == pytest.approx(0.01)


def test_likeness_of_tokens_is_not_sold_as_specialisation():
    """Each image has one expert for its 1000 tokens, by lot: informative for a test over tokens."""
    p_values = []
    for seed in range(60):
        draw = np.random.default_rng(seed)
        labels = draw.permutation(np.arange(30) % 3)
        counts = 1000.0 * np.eye(4)[draw.integers(4, size=30)]
        found = class_information(counts, labels, 3, shuffles=39, seed=seed)
        assert found.bits > 0.01, "counted alone, it looks like something"
        p_values.append(found.p_value)
    below = np.mean(np.array(p_values) <= 0.05)
    assert below <= 0.15, "about one in twenty by chance"
    assert 0.35 < np.mean(p_values) < 0.65


# ---- counts of one router


def test_rolled_sums_against_a_loop():
    generator = torch.Generator().manual_seed(0)
    maps = torch.randint(0, 5, (6, 3, 3, 2), generator=generator).float()
    shifts = torch.randint(0, 3, (2, 4, 6), generator=generator)
    expected = torch.stack(
        [
            sum(
                torch.roll(maps[b], (int(shifts[0, r, b]), int(shifts[1, r, b])), (0, 1))
                for b in range(6)
            )
            for r in range(4)
        ]
    )
    assert torch.equal(rolled_sums(maps, shifts), expected)


def test_tally_by_hand():
    # T = 3, B = 1, N = 4, E = 2: token 0 stays, token 1 changes once, token 2 opens late, 3 never
    stays, other, none, both = [1, 0], [0, 1], [0, 0], [1, 1]
    gates = torch.tensor(
        [
            [[stays, stays, none, none]],
            [[stays, other, none, none]],
            [[stays, other, both, none]],
        ]
    ).float()
    tally = RoutingTally(competitive=True, shuffles=2, seed=0)
    tally.add(gates, torch.full((3, 1, 4, 2), 0.5))
    tally.add(gates, torch.tensor([1.0, 0.0]).expand(3, 1, 4, 2))
    assert [c.tolist() for c in tally.choices_BE] == [[[5.0, 3.0]]] * 2
    assert tally.choices_NE.tolist() == [[6, 0], [2, 4], [2, 2], [0, 0]]
    assert tally.open_counts.tolist() == [10, 12, 2]
    assert tally.open_per_step.tolist() == [4, 4, 8]
    assert tally.both_open.tolist() == [4, 4]
    assert tally.changed.tolist() == [2, 0]
    assert tally.entropy_per_step == pytest.approx([1.0, 1.0, 1.0])  # blind, then sure
    assert tally.images == 2
    assert tally.rolled_RNE.sum((1, 2)).tolist() == [16, 16]
    assert tally.rolled_RNE.sum(1).tolist() == [[10, 6]] * 2, "a roll keeps each expert's load"


def test_tally_needs_a_square_map():
    with pytest.raises(ValueError, match="6 tokens are no square map"):
        RoutingTally(competitive=True, shuffles=1, seed=0).add(
            torch.ones(1, 1, 6, 2), torch.full((1, 1, 6, 2), 0.5)
        )


# ---- reading a model


@pytest.mark.parametrize("variant", VARIANTS)
def test_reading_against_loops(variant):
    """Everything counted, from the gates of one single batch and nested loops."""
    config = tiny_config(**VARIANTS[variant])
    model, split = settled_model(config), split_of(config)
    reading = read_mixture(model, split, shuffles=3)
    with torch.no_grad():
        out = model(split.images)
    right = out.logits.argmax(1) == split.labels
    assert reading.accuracy == pytest.approx(float(right.float().mean()))
    assert reading.samples == SAMPLES
    assert len(reading.links) == len(out.routing)
    for link, info in zip(reading.links, out.routing, strict=True):
        check_link(link, info.gates.numpy().astype(bool), split.labels.numpy(), config)
        assert 0 <= link.routing_entropy <= 1
        assert link.entropy_per_step.shape == (config.time_steps,)
    names = [link.name for link in reading.links]
    assert len(set(names)) == len(names)
    assert set(reading.firing_rates) == set(reading.silent_shares)
    assert sum(load.sum() for load in reading.loads.values()) == pytest.approx(len(reading.loads))


def check_link(link, gates, labels, config):
    steps, images, tokens, experts = gates.shape
    rows = steps * images * tokens
    assert link.open_rate == pytest.approx([gates[..., e].sum() / rows for e in range(experts)])
    total = max(gates.sum(), 1)
    assert link.load == pytest.approx([gates[..., e].sum() / total for e in range(experts)])
    opened = gates.sum(-1)
    assert link.open_counts == pytest.approx([(opened == k).mean() for k in range(experts + 1)])
    assert link.open_per_step == pytest.approx([opened[t].mean() for t in range(steps)])
    for c in range(config.num_classes):
        mine = gates[:, labels == c]
        for e in range(experts):
            if mine.any():
                assert link.class_shares[c, e] == pytest.approx(mine[..., e].sum() / mine.sum())
            else:
                assert np.isnan(link.class_shares[c, e])
    for n in range(tokens):
        y, x = divmod(n, link.side)
        at = gates[:, :, n]
        for e in range(experts):
            if at.any():
                assert link.region_shares[e, y, x] == pytest.approx(at[..., e].sum() / at.sum())
            else:
                assert np.isnan(link.region_shares[e, y, x])
    for t in range(steps - 1):
        both = changed = 0
        for i, n in np.ndindex(images, tokens):
            before, after = gates[t, i, n], gates[t + 1, i, n]
            if before.any() and after.any():
                both += 1
                changed += bool((before != after).any())
        if both:
            assert link.gate_changes[t] == pytest.approx(changed / both)
        else:
            assert np.isnan(link.gate_changes[t])


@pytest.mark.parametrize("variant", ["top_k", "window", "grouped", "chain in time"])
def test_hidden_rates_are_those_behind_open_gates(variant):
    """Against a plain loop over experts and steps, for one image at a time."""
    config = tiny_config(**VARIANTS[variant])
    model, split = settled_model(config), split_of(config, 5)
    link = read_mixture(model, split, shuffles=1).links[0]
    experts = model.blocks[0].moe.experts
    spikes = np.zeros((config.num_experts, config.expert_width))
    opened = np.zeros(config.num_experts)
    silent = np.ones((config.num_experts, config.expert_width), dtype=bool)
    for image in split.images:
        x, gates = inputs_of(experts, model, image[None])
        for e in range(config.num_experts):
            norm, g = experts.norm1, gates[..., e, None]
            scale = norm.weight[e] / (norm.running_var[e] + norm.eps).sqrt()
            current = (x * g) @ experts.weight1[e].mT
            current = ((current - norm.running_mean[e]) * scale + norm.bias[e]) * g
            hidden = lif_loop(current, config)
            spikes[e] += hidden.sum((0, 1, 2)).numpy()
            silent[e] &= hidden.sum((0, 1, 2)).numpy() == 0
            opened[e] += float(g.sum())
    used = opened > 0
    assert used.any()
    assert link.hidden_rates[used] == pytest.approx(spikes[used] / opened[used, None], abs=1e-6)
    assert link.expert_rates[used] == pytest.approx(spikes[used].mean(1) / opened[used], abs=1e-6)
    assert np.isnan(link.hidden_rates[~used]).all()
    assert link.dead_neurons == pytest.approx(silent[used].mean())


@torch.no_grad()
def inputs_of(module, model, images):
    """What a module was last given."""
    seen = []
    handle = module.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs))
    model(images)
    handle.remove()
    return seen[-1]


def lif_loop(current, config):
    v, spikes = torch.zeros_like(current[0]), []
    for step in current:
        u = config.membrane_decay * v + step
        spikes.append((u > config.threshold).float())
        v = u * (1 - spikes[-1])
    return torch.stack(spikes)


def test_firing_rates_by_module():
    config = tiny_config()
    model, split = settled_model(config), split_of(config)
    reading = read_mixture(model, split, shuffles=1)
    for name in ("stem.neurons.0", "prompt.neuron", "blocks.0.attention.key_neuron", "head_neuron"):
        spikes = output_of(model.get_submodule(name), model, split.images)
        assert reading.firing_rates[name] == pytest.approx(float(spikes.mean()))
        silent = (spikes.sum((0, 1)) == 0).float().mean()
        assert reading.silent_shares[name] == pytest.approx(float(silent))


@torch.no_grad()
def output_of(module, model, images):
    """What a module last gave."""
    seen = []
    handle = module.register_forward_hook(lambda _m, _i, output: seen.append(output))
    model(images)
    handle.remove()
    return seen[-1]


def with_bias(model, *values):
    """The first router's homeostatic bias set by hand."""
    model.blocks[0].moe.router.homeostatic_bias.copy_(torch.tensor(values))
    return model


def test_an_expert_that_is_never_chosen_is_dead():
    config = tiny_config()
    model = with_bias(settled_model(config), 0.0, -100.0, 0.0)
    link = read_mixture(model, split_of(config), shuffles=1).links[0]
    assert link.dead_experts == (1,)
    assert link.load[1] == 0
    assert np.isnan(link.expert_rates[1])
    assert np.isfinite(link.expert_rates[[0, 2]]).any()
    assert 0 <= link.dead_neurons <= 1


def test_no_gate_at_all():
    """A threshold router that never opens: everything is counted, nothing is divided by zero."""
    config = tiny_config(routing="threshold")
    model = with_bias(settled_model(config), -100.0, -100.0, -100.0)
    reading = read_mixture(model, split_of(config), shuffles=2)
    link = reading.links[0]
    assert link.dead_experts == (0, 1, 2)
    assert link.open_counts.tolist() == [1, 0, 0, 0]
    assert link.mean_open == 0
    assert link.load_entropy == 0
    assert link.mean_change is None
    assert math.isnan(link.dead_neurons)
    assert link.by_class.bits == 0
    assert link.by_class.p_value == 1
    assert link.by_class.share == 0
    for picture in pictures_of(reading, "abc"):
        check_png(picture)


def test_all_gates_open():
    config = tiny_config(routing="threshold")
    model = with_bias(settled_model(config), 100.0, 100.0, 100.0)
    link = read_mixture(model, split_of(config), shuffles=2).links[0]
    assert link.open_counts.tolist() == [0, 0, 0, 1]
    assert link.load == pytest.approx([1 / 3] * 3)
    assert link.load_entropy == pytest.approx(1)
    assert link.by_class.bits == pytest.approx(0, abs=1e-9)
    assert link.by_class.p_value == 1
    assert link.by_region.p_value == 1


def test_image_wise_gates_know_nothing_of_the_place():
    config = tiny_config(route_by="image")
    link = read_mixture(settled_model(config), split_of(config), shuffles=5).links[0]
    assert link.by_region.bits == pytest.approx(0, abs=1e-9)
    assert link.by_region.p_value == 1


def test_a_router_by_class_and_place_is_found_out():
    """Gates set by hand: expert 0 for the left column, else expert 1 or 2 by the image's class."""
    config = tiny_config(num_classes=2)
    model, split = settled_model(config), split_of(config)
    side = config.tokens_per_side
    left = torch.arange(side * side) % side == 0
    position = [0]

    def gates_by_hand(_router, _inputs, output):
        gates, info = output
        start, batch = position[0], gates.shape[1]
        position[0] += batch
        expert = 1 + split.labels[start : start + batch]
        expert = torch.where(left[None], 0, expert[:, None])
        chosen = torch.nn.functional.one_hot(expert, 3).float().expand_as(gates)
        return chosen, replace(info, gates=chosen)

    model.blocks[0].moe.router.register_forward_hook(gates_by_hand)
    link = read_mixture(model, split).links[0]
    third, rest = 1 / side, 1 - 1 / side
    assert link.class_shares == pytest.approx(np.array([[third, rest, 0], [third, 0, rest]]))
    assert link.by_class.bits == pytest.approx(rest)
    assert link.by_class.p_value == pytest.approx(0.01)
    assert link.region_shares[0][:, 0].tolist() == [1] * side
    assert not link.region_shares[0][:, 1:].any()
    assert link.by_region.bits == pytest.approx(entropy_bits(np.array([third, rest])))
    assert link.by_region.p_value == pytest.approx(0.01)
    assert link.gate_changes.tolist() == [0] * (config.time_steps - 1)


def test_dense_models_are_refused():
    config = tiny_config(routing="dense", num_experts=1)
    with pytest.raises(
        ValueError, match=r"model 'tiny' has no mixture to read \(routing='dense'\)"
    ):
        read_mixture(settled_model(config), split_of(config))


def hooks_of(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_the_model_is_put_back():
    config = tiny_config(dispatch="grouped", gate_gradient="chosen")
    model, split = settled_model(config).train(), split_of(config)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    read_mixture(model, split, shuffles=1)
    dispatch = []

    def broken(_module, _inputs):
        dispatch.append(model.blocks[0].moe.experts.dispatch)
        raise RuntimeError("stop")

    handle = model.head.register_forward_pre_hook(broken)
    with pytest.raises(RuntimeError, match="stop"):
        read_mixture(model, split, shuffles=1)
    handle.remove()
    assert dispatch == ["masked"]
    assert model.training
    assert model.blocks[0].moe.experts.dispatch == "grouped"
    assert hooks_of(model) == 0
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_a_reading_can_be_repeated():
    config = tiny_config(depth=2)
    model, split = settled_model(config), split_of(config)
    first, second = (read_mixture(model, split, shuffles=9).links for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert a.by_class == b.by_class
        assert a.by_region == b.by_region


def test_progress_counts_images():
    config, calls = tiny_config(), []
    progress = lambda done, total: calls.append((done, total))  # noqa: E731
    read_mixture(settled_model(config), split_of(config), shuffles=1, progress=progress)
    assert calls == [(64, 70), (70, 70)]


# ---- pictures


def pictures_of(reading: MixtureReading, classes) -> list[bytes]:
    return [
        load_png(reading), class_png(reading, list(classes)), region_png(reading),
        steps_png(reading),
    ]  # fmt: skip


def check_png(content):
    pixels = imread(io.BytesIO(content))
    assert min(pixels.shape[:2]) > 150
    assert max(pixels.shape[:2]) < 6000
    assert pixels[..., :3].std() > 0.02, "there is something to see"


@pytest.mark.parametrize("variant", ["window", "chain"])
def test_pictures(variant):
    config = tiny_config(**VARIANTS[variant])
    reading = read_mixture(settled_model(config), split_of(config), shuffles=2)
    for picture in pictures_of(reading, "abc"):
        check_png(picture)


def test_pictures_of_many_experts_and_classes():
    config = tiny_config()
    reading = read_mixture(settled_model(config), split_of(config), shuffles=2)
    rng, link = np.random.default_rng(0), reading.links[0]
    known = Information(0.5, 0.1, 2.0, 0.01, 99)
    link = replace(
        link,
        load=shares(rng.random(64)),
        open_rate=rng.random(64) / 64,
        class_shares=shares(rng.random((100, 64))),
        region_shares=rng.random((64, 8, 8)),
        by_class=known,
        by_region=known,
    )
    for picture in pictures_of(replace(reading, links=(link,)), map(str, range(100))):
        check_png(picture)
