"""The mixture layer: shared experts, alternating blocks, chains in depth and in time."""

import copy
from dataclasses import replace

import pytest
import torch
from tiny_models import settled_model, tiny_config, tiny_images

from spikingmoe.config import TrainConfig
from spikingmoe.layers.moe import DenseMLP, MixtureOfExperts
from spikingmoe.model import SpikingTransformer
from spikingmoe.train.checkpoint import ABOUT, ArchiveIO, about, load_run
from spikingmoe.train.optim import make_optimizer

STEPS, BATCH, TOKENS = 4, 2, 9
CHAIN = tiny_config(chain="depth", chain_length=3, num_experts=4)
TIME = tiny_config(chain="time", num_experts=4, time_steps=STEPS)


def mixture(config, seed=0):
    """The first mixture of a settled model, in float64 and evaluation mode."""
    model = settled_model(config, seed).double()
    return next(block.moe for block in model.blocks if block.moe is not None)


def inputs(steps=STEPS, seed=1):
    """The stream U and the prompt P."""
    torch.manual_seed(seed)
    stream = 1.5 * torch.randn(steps, BATCH, TOKENS, 8, dtype=torch.float64) + 0.3
    prompt = (torch.rand(steps, BATCH, 5, dtype=torch.float64) < 0.5).double()
    return stream, prompt


def parts(link, stream, prompt):
    """X, what the experts add, the gates: from the modules of one link."""
    x = link.neuron(stream)
    gates, _ = link.router(x, stream, prompt)
    return x, link.experts(x, gates)[0], gates


# ---- one link, shared experts


def test_a_mixture_is_neuron_router_and_experts():
    moe = mixture(tiny_config(num_experts=4))
    stream, prompt = inputs()
    x, current, (info,) = moe(stream, prompt)
    own_x, own_current, gates = parts(moe, stream, prompt)
    assert torch.equal(x, own_x)
    assert torch.equal(current, own_current)
    assert torch.equal(info.gates, gates)
    assert current.any()


@pytest.mark.parametrize("count", [1, 2])
def test_shared_experts_are_always_on(count):
    config = tiny_config(num_experts=4, shared_experts=count)
    moe = mixture(config)
    assert moe.shared.up.linear.weight.shape == (count * config.expert_width, config.embed_dim)
    stream, prompt = inputs()
    x, current, _ = moe(stream, prompt)
    own_x, routed, _ = parts(moe, stream, prompt)
    assert torch.allclose(current, routed + moe.shared(own_x), rtol=1e-12)
    # a gate that opens for nobody leaves the shared experts working
    moe.router.choose.mask = lambda scores: torch.zeros_like(scores)
    assert torch.equal(moe(stream, prompt)[1], moe.shared(x))
    assert moe.shared(x).any()


def test_two_shared_experts_are_the_sum_of_two():
    moe = mixture(tiny_config(shared_experts=2))
    width = 6
    x = (torch.rand(STEPS, BATCH, TOKENS, 8) < 0.5).double()
    hidden = moe.shared.neuron(moe.shared.up(x))
    weight = moe.shared.down.linear.weight
    halves = hidden[..., :width] @ weight[:, :width].T + hidden[..., width:] @ weight[:, width:].T
    assert torch.allclose(moe.shared.down.linear(hidden), halves, rtol=1e-12)


# ---- alternating blocks


@pytest.mark.parametrize(
    ("every", "mixtures"), [(1, [0, 1, 2, 3, 4]), (2, [1, 3]), (3, [2]), (5, [4])]
)
def test_every_nth_block_is_a_mixture(every, mixtures):
    config = tiny_config(depth=5, mixture_every=every, mlp_width=7 if every > 1 else 0)
    model = settled_model(config)
    for index, block in enumerate(model.blocks):
        assert isinstance(block.moe, MixtureOfExperts) is (index in mixtures)
        assert isinstance(block.mlp, DenseMLP) is (index not in mixtures)
        if block.mlp is not None:
            assert block.mlp.mlp.up.linear.weight.shape == (7, config.embed_dim)
    out = model(tiny_images(config, 2))
    assert len(out.routing) == len(mixtures) == len(model.routers())


def test_dense_blocks_are_as_wide_as_one_expert_unless_told():
    model = SpikingTransformer(tiny_config(depth=2, mixture_every=2))
    assert model.blocks[0].mlp.mlp.up.linear.weight.shape == (6, 8)


# ---- chain in depth


def test_links_share_expert_weights_and_nothing_else():
    moe = mixture(CHAIN)
    first, *links = [moe, *moe.links]
    assert len(links) == 2
    for link in links:
        assert link.experts.weight1 is first.experts.weight1
        assert link.experts.weight2 is first.experts.weight2
    for get in (
        lambda link: link.router.from_token.weight,
        lambda link: link.router.homeostatic_bias,
        lambda link: link.experts.norm1.weight,
        lambda link: link.experts.norm2.running_mean,
    ):
        values = [get(link) for link in (first, *links)]
        assert len({v.data_ptr() for v in values}) == 3
        assert not any(torch.equal(values[0], v) for v in values[1:])


def test_a_chain_applies_link_after_link_to_the_changed_stream():
    config = replace(CHAIN, shared_experts=1)
    moe = mixture(config)
    stream, prompt = inputs(config.time_steps)
    x, current, infos = moe(stream, prompt)
    x0, total, gates = parts(moe, stream, prompt)
    total = total + moe.shared(x0)  # shared experts work once, in the first link
    choices = [gates]
    for link in moe.links:
        x_link, more, gates = parts(link, stream + total, prompt)
        assert not torch.equal(x_link, x0)
        total = total + more
        choices.append(gates)
    assert torch.equal(x, x0)
    assert torch.allclose(current, total, rtol=1e-12)
    assert len(infos) == 3
    for info, gates in zip(infos, choices, strict=True):
        assert torch.equal(info.gates, gates)
    assert not torch.equal(choices[0], choices[1])


def test_routers_come_in_the_order_of_their_routing_information():
    model = settled_model(replace(CHAIN, depth=2))
    out = model(tiny_images(CHAIN, 4))
    assert len(out.routing) == len(model.routers()) == 6
    for router, info in zip(model.routers(), out.routing, strict=True):
        seen = []
        handle = router.register_forward_hook(lambda _m, _i, o, seen=seen: seen.append(o[1]))
        model(tiny_images(CHAIN, 4))
        handle.remove()
        assert torch.equal(seen[0].scores, info.scores)


def test_the_optimiser_counts_each_shared_parameter_once():
    model = SpikingTransformer(CHAIN)
    optimiser = make_optimizer(model, TrainConfig())
    held = [p for group in optimiser.param_groups for p in group["params"]]
    assert len({id(p) for p in held}) == len(held)
    assert {id(p) for p in held} == {id(p) for p in model.parameters()}
    shared = model.blocks[0].moe.experts.weight1
    assert sum(p is shared for p in held) == 1
    decayed = optimiser.param_groups[0]
    assert decayed["weight_decay"] > 0
    assert any(p is shared for p in decayed["params"])


def test_every_link_adds_to_the_gradient_of_the_shared_weights():
    model = settled_model(CHAIN).double().train()
    images = tiny_images(CHAIN, 8).double()
    model(images).logits.square().sum().backward()
    together = model.blocks[0].moe.experts.weight1.grad.clone()
    apart = copy.deepcopy(model)
    moe = apart.blocks[0].moe
    for link in moe.links:  # unshare
        link.experts.weight1 = torch.nn.Parameter(moe.experts.weight1.detach().clone())
    apart.zero_grad()
    apart(images).logits.square().sum().backward()
    each = [link.experts.weight1.grad for link in (moe, *moe.links)]
    assert all(g.abs().max() > 0 for g in each)
    assert torch.allclose(together, sum(each), rtol=1e-9, atol=1e-12)


def shares(model):
    moe = model.blocks[0].moe
    return all(
        link.experts.weight1 is moe.experts.weight1 and link.experts.weight2 is moe.experts.weight2
        for link in moe.links
    )


def test_sharing_survives_copies_dtypes_and_state_dicts():
    model = settled_model(CHAIN)
    other = SpikingTransformer(CHAIN).eval()
    other.load_state_dict(model.state_dict())
    images = tiny_images(CHAIN, 4)
    for name, kept in {
        "loaded": other,
        "copied": copy.deepcopy(model),
        "double": copy.deepcopy(model).double(),
    }.items():
        assert shares(kept), name
        kept.blocks[0].moe.experts.weight1.data.zero_()
        assert not kept.blocks[0].moe.links[1].experts.weight1.any(), name
    again = SpikingTransformer(CHAIN).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(images).logits, model(images).logits)


def test_a_checkpoint_keeps_the_chain(tmp_path):
    model = settled_model(CHAIN)
    path = tmp_path / "epoch-0001.safetensors"
    content = {
        "state_dict": {f"model.{k}": v for k, v in model.state_dict().items()},
        "epoch": 0,
        ABOUT: about(CHAIN, TrainConfig(), []),
    }
    ArchiveIO().save_checkpoint(content, path)
    loaded = load_run(path).model
    assert shares(loaded)
    images = tiny_images(CHAIN, 4)
    assert torch.equal(loaded(images).logits, model(images).logits)


# ---- chain in time


def test_a_chain_in_time_is_a_loop_over_steps():
    """Neurons stepped one by one, the output of a step on the stream of the next."""
    moe = mixture(replace(TIME, shared_experts=1))
    stream, prompt = inputs()
    x, current, (info,) = moe(stream, prompt)

    def step_neuron(membrane, drive):
        u = 0.5 * membrane + drive
        spike = (u > 1).double()
        return u * (1 - spike), spike

    last = torch.zeros_like(stream[0])
    v_x, v_hidden, v_shared = 0.0, 0.0, 0.0
    experts = moe.experts
    for t in range(STEPS):
        v_x, spike = step_neuron(v_x, stream[t] + last)
        gates, _ = moe.router(spike[None], stream[t : t + 1], prompt[t : t + 1])
        gate = gates[0].permute(2, 0, 1).flatten(1)[..., None]  # (E, B N, 1)
        rows = spike.flatten(0, 1) * gate
        drive = experts.norm1(rows @ experts.weight1.mT, gate)
        v_hidden, hidden = step_neuron(v_hidden, drive)
        out = experts.norm2(hidden @ experts.weight2.mT, gate).sum(0).view_as(last)
        v_shared, hidden = step_neuron(v_shared, moe.shared.up(spike[None])[0])
        last = out + moe.shared.down(hidden[None])[0]
        assert torch.equal(x[t], spike)
        assert torch.equal(info.gates[t], gates[0])
        assert torch.allclose(current[t], last, rtol=1e-9, atol=1e-12)
    assert current[1:].any()


def test_a_chain_in_time_hears_the_step_before():
    """Otherwise the loop above would be that of an ordinary mixture."""
    chained, plain = mixture(TIME), mixture(replace(TIME, chain="none"))
    plain.load_state_dict(chained.state_dict())
    stream, prompt = inputs()
    assert torch.equal(chained(stream, prompt)[1][0], plain(stream, prompt)[1][0])
    assert not torch.equal(chained(stream, prompt)[1], plain(stream, prompt)[1])


@pytest.mark.parametrize("config", [TIME, CHAIN, replace(TIME, chain="none")])
def test_no_step_hears_the_future(config):
    moe = mixture(config)
    stream, prompt = inputs()
    changed, other_prompt = stream.clone(), prompt.clone()
    changed[2:] += torch.randn_like(changed[2:])
    other_prompt[2:] = 1 - other_prompt[2:]
    x, current, infos = moe(stream, prompt)
    x2, current2, infos2 = moe(changed, other_prompt)
    assert torch.equal(x[:2], x2[:2])
    assert torch.equal(current[:2], current2[:2])
    assert not torch.equal(current[2:], current2[2:])
    for a, b in zip(infos, infos2, strict=True):
        assert torch.equal(a.gates[:2], b.gates[:2])


def test_gradients_of_a_chain_in_time_reach_earlier_steps():
    moe = mixture(TIME)
    stream, prompt = inputs()
    stream.requires_grad_()
    moe(stream, prompt)[1][3].square().sum().backward()
    assert all(stream.grad[t].any() for t in range(STEPS))


# ---- the whole family on one sheet


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "options",
    [
        {"routing": "noisy_top_k"},
        {"routing": "threshold", "hold": "window"},
        {"routing": "dynamic", "hold": "window"},
        {"routing": "expert_choice", "top_k": 3},
        {"routing": "hash", "prompt": "none"},
        {"routing": "hierarchical", "num_experts": 4, "num_groups": 2, "route_by": "image"},
        {"route_by": "image", "router_input": "membrane"},
        {"num_experts": 64, "top_k": 5, "expert_width": 2},
        {"top_k": 3, "gate_gradient": "margin"},
    ],
    ids=lambda o: "-".join(map(str, o.values())),
)
def test_every_rule_keeps_the_precision_and_trains(dtype, options):
    config = tiny_config(**options)
    model = settled_model(config).to(dtype).train()
    out = model(tiny_images(config, 4).to(dtype))
    info = out.routing[0]
    for tensor in (out.logits, info.gates, info.scores, info.load, info.open_rate):
        assert tensor.dtype == dtype
    assert all(value.dtype == dtype for value in vars(info.losses).values())
    assert info.gates.shape == (3, 4, 9, config.num_experts)
    loss = out.logits.square().sum() + sum(vars(info.losses).values())
    loss.backward()
    router = model.blocks[0].moe.router
    heard = [p.grad for p in router.parameters() if p.requires_grad]
    assert all(g is not None and torch.isfinite(g).all() for g in heard)
    assert any(g.any() for g in heard) or config.routing == "hash"
    model.adapt(out.routing, 0.1)
    assert torch.isfinite(router.homeostatic_bias).all()
