"""Each attention against loops written from its equation, and what is true of it in general."""

import itertools
import math

import pytest
import torch
from tiny_models import settled_model, tiny_config, tiny_images
from torch import nn

from hardware.lowering.ann import count_ann_layers
from spikingmoe.config import relu_twin
from spikingmoe.functional.attention import positive_gain, qk_token_sum, sdsa_channel_sum
from spikingmoe.layers.attention import (
    DepthwiseMixing,
    QKAttention,
    SDSAttention,
    SpikingSelfAttention,
    make_attention,
)

KINDS = ["qk", "sdsa", "dwconv", "ssa"]
T, B, SIDE, D, HEADS = 3, 2, 3, 12, 3
N = SIDE * SIDE


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def build(kind, neuron="lif", **overrides):
    """A float64 attention in evaluation mode with norms and gains off their initial values."""
    config = tiny_config(
        attention=kind, embed_dim=D, num_heads=HEADS, routing="dense", num_experts=1, **overrides
    )
    module = make_attention(relu_twin(config) if neuron == "relu" else config)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if "running_var" in name:
            tensor.data.uniform_(0.02, 0.2)
        elif tensor.is_floating_point() and ("norm" in name or "log_gain" in name):
            tensor.data.add_(0.3 * torch.randn_like(tensor))
    if kind == "sdsa":
        module.log_gain.data -= 1.0  # on 9 tokens: so that it takes more than one spike to fire
    return module.double().eval()


def stream(steps=T, batch=B, tokens=N):
    return 1.5 * torch.randn(steps, batch, tokens, D, dtype=torch.float64)


# ---- the equations, written as loops


def fire(current, neuron):
    """u = v / 2 + current; a spike if u > 1; v = 0 after it, else u. Or ReLU."""
    if neuron == "relu":
        return current.clamp(min=0)
    v = torch.zeros_like(current[0])
    spikes = torch.zeros_like(current)
    for t in range(len(current)):
        u = v / 2 + current[t]
        spikes[t] = (u > 1).double()
        v = torch.where(u > 1, 0.0, u)
    return spikes


def normed(norm, y):
    """Batch norm on the last axis by its definition."""
    return (y - norm.running_mean) / torch.sqrt(norm.running_var + norm.eps) * norm.weight + (
        norm.bias
    )


def through(layer, x):
    return normed(layer.norm, x @ layer.linear.weight.T)


def naive_qk(m, x, neuron):
    query, key = fire(through(m.query, x), neuron), fire(through(m.key, x), neuron)
    width = D // HEADS
    current = torch.zeros(*x.shape[:3], HEADS, dtype=torch.float64)
    for h, i in itertools.product(range(HEADS), range(width)):
        current[..., h] += m.gain[h] * query[..., h * width + i]
    token = fire(current, neuron)
    gated = torch.zeros_like(key)
    for d in range(D):
        gated[..., d] = token[..., d // width] * key[..., d]
    return gated


def naive_sdsa(m, x, neuron):
    query, key, value = (fire(through(p, x), neuron) for p in (m.query, m.key, m.value))
    tokens = x.shape[2]
    current = torch.zeros(*x.shape[:2], D, dtype=torch.float64)
    for n, d in itertools.product(range(tokens), range(D)):
        current[..., d] += m.gain(tokens)[d] * key[:, :, n, d] * value[:, :, n, d]
    channel = fire(current, neuron)
    gated = torch.zeros_like(query)
    for n in range(tokens):
        gated[:, :, n] = query[:, :, n] * channel
    return gated


def naive_dwconv(m, x, neuron):
    current = torch.zeros_like(x)
    for row, column, up, left in itertools.product(range(SIDE), range(SIDE), range(3), range(3)):
        source_row, source_column = row + up - 1, column + left - 1
        if 0 <= source_row < SIDE and 0 <= source_column < SIDE:
            weight = m.conv.weight[:, 0, up, left]
            current[:, :, row * SIDE + column] += (
                weight * x[:, :, source_row * SIDE + source_column]
            )
    return fire(normed(m.norm, current), neuron)


def naive_ssa(m, x, neuron):
    query, key, value = (fire(through(p, x), neuron) for p in (m.query, m.key, m.value))
    tokens, width = x.shape[2], D // HEADS
    current = torch.zeros_like(x)
    for h in range(HEADS):
        own = slice(h * width, (h + 1) * width)
        gain = m.gain(tokens)[h]
        for n, other in itertools.product(range(tokens), range(tokens)):
            alike = (query[:, :, n, own] * key[:, :, other, own]).sum(-1, keepdim=True)
            current[:, :, n, own] += gain * alike * value[:, :, other, own]
    return fire(current, neuron)


NAIVE = {"qk": naive_qk, "sdsa": naive_sdsa, "dwconv": naive_dwconv, "ssa": naive_ssa}


@pytest.mark.parametrize("neuron", ["lif", "relu"])
@pytest.mark.parametrize("kind", KINDS)
def test_attention_against_loops(kind, neuron):
    module = build(kind, neuron)
    u = stream(steps=T if neuron == "lif" else 1)
    with torch.no_grad():
        gated = NAIVE[kind](module, fire(u, neuron), neuron)
        expected = through(module.project, gated)
        got = module(u)
    assert 0.01 < float((gated != 0).double().mean()) < 0.95, "some spikes must pass, some not"
    assert torch.allclose(got, expected, rtol=1e-9, atol=1e-10)  # float64, another order of sums


# ---- what is true of them


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_parameter(kind):
    module = build(kind).train()
    out = module(stream(batch=8))
    (out * torch.randn_like(out)).sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert (parameter.grad != 0).any(), name


@pytest.mark.parametrize("kind", KINDS)
def test_samples_do_not_see_each_other(kind):
    module, u = build(kind), stream(batch=5)
    together = module(u)
    assert torch.allclose(module(u[:, [3, 1, 4, 0, 2]]), together[:, [3, 1, 4, 0, 2]])
    assert torch.allclose(module(u[:, 2:3]), together[:, 2:3])


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_convolution_knows_where_a_token_is(kind):
    module, u = build(kind), stream()
    order = torch.randperm(N)
    moved = torch.allclose(module(u[:, :, order]), module(u)[:, :, order])
    assert moved == (kind != "dwconv")


@pytest.mark.parametrize("kind", KINDS)
def test_which_tokens_can_change_which(kind):
    """One token exchanged: qk changes it alone, dwconv its neighbours, sdsa and ssa any token."""
    module, u = build(kind), stream(batch=40)
    other = u.clone()
    corner = 0
    other[:, :, corner] = stream(batch=40)[:, :, corner]
    changed = (module(u) - module(other)).abs().amax(dim=(0, 1, 3)) > 1e-9
    near = [n for n in range(N) if n // SIDE <= 1 and n % SIDE <= 1]
    reached = {"qk": [corner], "dwconv": near}.get(kind, list(range(N)))
    assert changed.nonzero().flatten().tolist() == reached


@pytest.mark.parametrize("neuron", ["token_neuron", "channel_neuron"])
def test_closed_gates_let_nothing_pass(neuron):
    module = build("qk" if neuron == "token_neuron" else "sdsa")
    module.log_gain.data.fill_(-50.0)
    passed = []
    module.gate.register_forward_hook(lambda _m, _i, out: passed.append(out))
    out = module(stream())
    assert not passed[0].any()
    assert passed[0].shape == (T, B, N, D)
    assert torch.allclose(out, normed(module.project.norm, torch.zeros_like(out)))


def test_a_channel_of_sdsa_passes_whole_or_not_at_all():
    module, seen = build("sdsa"), {}
    for name in ("query_neuron", "channel_neuron", "gate"):
        module.get_submodule(name).register_forward_hook(
            lambda _m, _i, out, name=name: seen.update({name: out})
        )
    module(stream())
    channel = seen["channel_neuron"]
    assert channel.shape == (T, B, D)
    assert 0 < channel.mean() < 1
    for n in range(N):
        kept, query = seen["gate"][:, :, n], seen["query_neuron"][:, :, n]
        assert torch.equal(kept[channel == 1], query[channel == 1])
        assert not kept[channel == 0].any()


# ---- gains


def gain_of(module):
    return module.gain if isinstance(module, QKAttention) else module.gain(N)


def test_gains_are_what_the_docstrings_say():
    for kind, inputs in (("qk", 1), ("sdsa", N), ("ssa", N * D // HEADS)):
        module = build(kind)
        expected = [math.exp(value) / inputs for value in module.log_gain.tolist()]
        assert gain_of(module).tolist() == pytest.approx(expected, rel=2e-7)  # float32


@pytest.mark.parametrize("kind", ["qk", "sdsa", "ssa"])
def test_gains_are_positive_and_the_same_number_in_every_dtype(kind):
    """What is lowered from a float32 model is what its float64 copy computes with, bit for bit."""
    module = make_attention(tiny_config(attention=kind, embed_dim=D, num_heads=HEADS))
    module.log_gain.data += torch.randn_like(module.log_gain)
    single = gain_of(module)
    double = gain_of(module.double())
    assert double.dtype == torch.float64
    assert torch.equal(single.double(), double)
    assert (single > 0).all()
    module.log_gain.data.fill_(-50.0)
    assert (gain_of(module) > 0).all()


def test_sums_of_a_gain_are_exact_in_any_order():
    """A chip adds the gain spike by spike, torch multiplies a count: equal in float64, bit for bit."""
    gains = positive_gain(torch.randn(50, dtype=torch.float64), 9)
    added = torch.zeros_like(gains)
    for count in range(1, 2000):
        added = added + gains
        assert torch.equal(added, gains * count)


def test_sums_by_hand():
    query = torch.tensor([1.0, 0, 1, 1, 0, 0]).view(1, 1, 1, 6)
    assert qk_token_sum(query, torch.tensor([0.5, 2.0])).tolist() == [[[[1.0, 2.0]]]]
    assert qk_token_sum(query, torch.tensor([0.5, 2.0, 4.0])).tolist() == [[[[0.5, 4.0, 0.0]]]]
    both = torch.tensor([[1.0, 0, 1], [1, 0, 0]]).view(1, 1, 2, 3)
    assert sdsa_channel_sum(both, torch.tensor([0.5, 4.0, 8.0])).tolist() == [[[1.0, 0.0, 8.0]]]


@pytest.mark.parametrize(
    ("kind", "neuron"),
    [("qk", "token_neuron"), ("sdsa", "channel_neuron"), ("ssa", "attention_neuron")],
)
@pytest.mark.parametrize(("dim", "heads", "tokens"), [(32, 4, 9), (32, 4, 256), (128, 2, 64)])
def test_neurons_behind_sums_are_alive_at_first_on_any_scale(kind, neuron, dim, heads, tokens):
    config = tiny_config(attention=kind, embed_dim=dim, num_heads=heads, time_steps=4)
    module, rates = make_attention(config), []
    module.get_submodule(neuron).register_forward_hook(
        lambda _m, _i, out: rates.append(out.mean().item())
    )
    module(torch.randn(1, 8, tokens, dim).expand(4, -1, -1, -1))  # as a still image: constant
    assert 0.08 < rates[0] < 0.35


# ---- configuration


def test_the_configuration_chooses():
    classes = {
        "qk": QKAttention,
        "sdsa": SDSAttention,
        "dwconv": DepthwiseMixing,
        "ssa": SpikingSelfAttention,
    }
    for kind, expected in classes.items():
        assert type(make_attention(tiny_config(attention=kind))) is expected
    assert make_attention(tiny_config(attention="none")) is None


def test_without_attention_a_block_has_no_such_parameters():
    model = settled_model(tiny_config(attention="none", routing="dense", num_experts=1))
    assert not [name for name, _ in model.named_parameters() if "attention" in name]
    assert torch.isfinite(model(tiny_images(model.config, 2)).logits).all()


def test_names_of_qk_are_those_of_earlier_checkpoints():
    names = {name.split(".")[0] for name, _ in QKAttention(tiny_config()).named_parameters()}
    assert names == {"query", "key", "log_gain", "project"}
    children = {name for name, _ in QKAttention(tiny_config()).named_children()}
    assert children == {
        *("neuron", "query", "query_neuron", "key", "key_neuron"),
        *("token_neuron", "gate", "project"),
    }


def test_a_map_that_is_no_square_is_refused():
    with pytest.raises(ValueError, match="attention 'dwconv': 8 tokens are no square map"):
        build("dwconv")(stream(tokens=8))


# ---- multiply-accumulates of the ReLU twin


def relu_model(kind):
    """N = 9, D = 8, two heads, one block."""
    config = tiny_config(attention=kind, routing="dense", num_experts=1)
    return settled_model(relu_twin(config))


LINEAR = 9 * 8 * 8  # one token-wise linear layer
TAPS = 4 * 4 + 4 * 6 + 9  # of a 3x3 kernel on a 3x3 map: corners, edges, centre


@pytest.mark.parametrize(
    ("kind", "macs"),
    [
        ("qk", 3 * LINEAR + 2 * 9 * 8),  # head sums; products with the keys
        ("sdsa", 4 * LINEAR + 3 * 9 * 8),  # products K V, their sums, products with the queries
        ("dwconv", LINEAR + 8 * TAPS),
        ("ssa", 4 * LINEAR + 2 * 9 * 8 * 4),  # K^T V and Q (K^T V), 4 channels per head
    ],
)
def test_multiply_accumulates_by_hand(kind, macs):
    model = relu_model(kind)
    layers = {c.name: c for c in count_ann_layers(model, tiny_images(model.config, 5))}
    assert layers["attention"].macs == macs
    assert 0 < layers["attention"].nonzero_macs < macs


def test_without_attention_none_is_counted():
    model = relu_model("none")
    layers = count_ann_layers(model, tiny_images(model.config, 5))
    assert [layer.name for layer in layers] == ["stem", "mlp", "head"]


@pytest.mark.parametrize("kind", KINDS)
def test_multiply_accumulates_of_nonzero_activations_against_loops(kind):
    model = relu_model(kind)
    images = tiny_images(model.config, 3)
    attention, out = model.blocks[0].attention, {}
    for name, module in attention.named_modules():
        module.register_forward_hook(
            lambda _m, inputs, o, name=name: out.update({name: (inputs, o)})
        )
    model(images)
    expected = 0
    for name, module in attention.named_modules():
        if isinstance(module, nn.Linear):
            expected += 8 * int((out[name][0][0] != 0).sum())
    live = {name: (o != 0)[0] for name, (_, o) in out.items()}  # (B, N, D)
    pairs = itertools.product(range(3), range(9), range(8))
    if kind == "qk":
        for b, n, d in pairs:
            expected += int(live["query_neuron"][b, n, d])  # in its head's sum
            expected += int(live["token_neuron"][b, n, d // 4] and live["key_neuron"][b, n, d])
    elif kind == "sdsa":
        for b, n, d in pairs:
            both = live["key_neuron"][b, n, d] and live["value_neuron"][b, n, d]
            expected += 2 * int(both)  # the product, and its part in the sum
            expected += int(live["query_neuron"][b, n, d] and live["channel_neuron"][b, d])
    elif kind == "dwconv":
        for b, n, d in pairs:
            if live["neuron"][b, n, d]:
                row, column = divmod(n, 3)
                expected += (3 if row == 1 else 2) * (3 if column == 1 else 2)
    else:
        query, key, value = (live[f"{p}_neuron"] for p in ("query", "key", "value"))
        for b, h in itertools.product(range(3), range(2)):
            for i, j in itertools.product(range(4 * h, 4 * h + 4), repeat=2):
                meet = [bool(key[b, n, i] and value[b, n, j]) for n in range(9)]
                expected += sum(meet)
                expected += sum(bool(query[b, n, i]) for n in range(9)) if any(meet) else 0
    layers = {c.name: c for c in count_ann_layers(model, images)}
    assert layers["attention"].nonzero_macs == pytest.approx(expected / 3)
