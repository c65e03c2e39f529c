"""Layers against loops and numbers worked out by hand."""

import itertools

import pytest
import torch
from tiny_models import settled_model, tiny_config, tiny_images
from torch.nn import functional as F

from spikingmoe.layers.attention import QKAttention
from spikingmoe.layers.expert import Experts, SpikingMLP
from spikingmoe.layers.gated_norm import GatedBatchNorm
from spikingmoe.layers.neuron import LIF
from spikingmoe.layers.stem import Stem
from spikingmoe.model import SpikingTransformer, create_model


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def spikes(*shape):
    return (torch.rand(*shape) < 0.4).double()


def scramble(module):
    """Move norms and their statistics off their initial values."""
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if "running_var" in name:
            tensor.data.uniform_(0.02, 0.2)
        elif tensor.dtype == torch.long:
            continue
        elif "running_mean" in name or "norm" in name or "log_gain" in name:
            tensor.data.add_(0.3 * torch.randn_like(tensor))
    return module.double()


# ---- batch norm behind gates


def naive_norm(norm, x, gates, mean, var, expert):
    """One expert's rows by the definition."""
    rows = []
    for row, gate in zip(x, gates, strict=True):
        normed = (row - mean) / torch.sqrt(var + norm.eps)
        rows.append(float(gate) * (norm.weight[expert] * normed + norm.bias[expert]))
    return torch.stack(rows)


def gated_rows(experts, rows, features, counts):
    gates = torch.zeros(experts, rows, 1, dtype=torch.float64)
    for expert, count in enumerate(counts):
        gates[expert, torch.randperm(rows)[:count]] = 1
    return torch.randn(experts, rows, features, dtype=torch.float64) * gates, gates


def test_statistics_are_those_of_the_gated_rows():
    norm = scramble(GatedBatchNorm(3, 4)).train()
    start_mean, start_var = norm.running_mean.clone(), norm.running_var.clone()
    x, gates = gated_rows(3, 60, 4, (16, 40, 15))
    out = norm(x, gates)
    for expert, count in enumerate((16, 40, 15)):
        chosen = x[expert, gates[expert, :, 0] == 1]
        assert len(chosen) == count
        if count >= 16:
            mean, var = chosen.mean(0), chosen.var(0, correction=0)
            new_mean = 0.9 * start_mean[expert] + 0.1 * mean
            new_var = 0.9 * start_var[expert] + 0.1 * chosen.var(0, correction=1)
        else:  # too few rows: running statistics, and they stay
            mean = new_mean = start_mean[expert]
            var = new_var = start_var[expert]
        expected = naive_norm(norm, x[expert], gates[expert], mean, var, expert)
        # float64, another order of sums
        assert torch.allclose(out[expert], expected, rtol=1e-10, atol=1e-12)
        assert torch.allclose(norm.running_mean[expert], new_mean, rtol=1e-10)
        assert torch.allclose(norm.running_var[expert], new_var, rtol=1e-10)


@pytest.mark.parametrize("training", [True, False])
def test_closed_gates_give_zero(training):
    norm = scramble(GatedBatchNorm(2, 4)).train(training)
    x, gates = gated_rows(2, 40, 4, (20, 0))
    out = norm(x, gates)
    assert not out[gates.expand_as(out) == 0].any()
    assert out[0].any()
    assert torch.isfinite(out).all()


def test_it_is_ordinary_batch_norm_when_all_gates_are_open():
    gated, plain = GatedBatchNorm(1, 5).double(), torch.nn.BatchNorm1d(5).double()
    x = torch.randn(30, 5, dtype=torch.float64)
    ones = torch.ones(1, 30, 1, dtype=torch.float64)
    assert torch.allclose(gated(x[None], ones)[0], plain(x), rtol=1e-10)
    for training in (True, False):
        gated.train(training), plain.train(training)
        assert torch.allclose(gated(x[None], ones)[0], plain(x), rtol=1e-10)
    assert torch.allclose(gated.running_var[0], plain.running_var, rtol=1e-10)


def test_evaluation_does_not_move_the_statistics():
    norm = GatedBatchNorm(2, 3).eval()
    x, gates = gated_rows(2, 40, 3, (30, 30))
    norm(x.float(), gates.float())
    assert not norm.running_mean.any()
    assert (norm.running_var == 1).all()


# ---- attention


def test_attention_against_a_loop_over_heads():
    config = tiny_config(embed_dim=12, num_heads=3)
    attention = scramble(QKAttention(config)).eval()
    stream = torch.randn(3, 2, 5, 12, dtype=torch.float64)
    out = attention(stream)

    def through(layer, x):  # BN(W x) by its definition
        norm = layer.norm
        y = x @ layer.linear.weight.T
        return (y - norm.running_mean) / torch.sqrt(norm.running_var + norm.eps) * norm.weight + (
            norm.bias
        )

    x = attention.neuron(stream)
    query = attention.query_neuron(through(attention.query, x))
    key = attention.key_neuron(through(attention.key, x))
    gated = torch.zeros_like(key)
    for head in range(3):
        own = slice(4 * head, 4 * head + 4)
        current = sum(query[..., d] for d in range(own.start, own.stop)) * attention.gain[head]
        token = attention.token_neuron(current)
        for d in range(own.start, own.stop):
            gated[..., d] = token * key[..., d]
    assert 0 < gated.mean() < key.mean(), "some tokens must pass, some not"
    assert torch.allclose(out, through(attention.project, gated), rtol=1e-9, atol=1e-12)


def test_gain_stays_positive():
    attention = QKAttention(tiny_config())
    attention.log_gain.data.fill_(-50.0)
    assert (attention.gain > 0).all()


# ---- experts


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("top_k", [1, 2])
def test_experts_against_a_loop(training, top_k):
    config = tiny_config(num_experts=3, top_k=top_k)
    experts = scramble(Experts(config)).train(training)
    naive_norms = [scramble(GatedBatchNorm(3, 6)), scramble(GatedBatchNorm(3, 8))]
    for norm, own in zip(naive_norms, (experts.norm1, experts.norm2), strict=True):
        norm.load_state_dict(own.state_dict())
        norm.train(training)
    x = spikes(3, 4, 9, 8)
    choice = torch.stack([torch.randperm(3)[:top_k] for _ in range(3 * 4 * 9)])
    gates = torch.zeros(108, 3, dtype=torch.float64).scatter_(1, choice, 1).view(3, 4, 9, 3)
    out, mean_outputs = experts(x, gates)

    total = torch.zeros_like(out)
    for e in range(3):
        gate = gates[..., e : e + 1]
        rows = gate.reshape(1, -1, 1).expand(3, -1, -1)
        one_hot = F.one_hot(torch.tensor(e), 3).double()[:, None, None]

        def norm_of(norm, y, rows=rows, one_hot=one_hot, e=e):
            return norm(y.reshape(1, -1, y.shape[-1]) * one_hot, rows * one_hot)[e].view_as(y)

        current = norm_of(naive_norms[0], (x * gate) @ experts.weight1[e].T)
        hidden = experts.neuron(current)
        assert not hidden[gate.expand_as(hidden) == 0].any()
        assert hidden.any()
        own = norm_of(naive_norms[1], hidden @ experts.weight2[e].T)
        rows = (hidden @ experts.weight2[e].T)[gate[..., 0] == 1]  # before the batch norm
        assert torch.allclose(mean_outputs[e], rows.mean(0), rtol=1e-9, atol=1e-10)
        total += own
    assert torch.allclose(out, total, rtol=1e-9, atol=1e-10)  # float64, other order of sums


def test_a_mixture_that_always_chooses_one_expert_is_that_expert():
    config = tiny_config(num_experts=3)
    experts, mlp = (
        scramble(Experts(config)).eval(),
        SpikingMLP(config, config.expert_width).double().eval(),
    )
    for e in range(3):
        for layer, weight, norm in (
            (mlp.up, experts.weight1, experts.norm1),
            (mlp.down, experts.weight2, experts.norm2),
        ):
            layer.linear.weight.data.copy_(weight[e])
            for name in ("weight", "bias", "running_mean", "running_var"):
                getattr(layer.norm, name).data.copy_(getattr(norm, name)[e])
        x = spikes(3, 4, 9, 8)
        gates = F.one_hot(torch.full((3, 4, 9), e), 3).double()
        # batch norm as x * scale + shift against (x - mean) / std: float64 rounding
        assert torch.allclose(experts(x, gates)[0], mlp(x), rtol=1e-9, atol=1e-10)


# ---- stem and model


@pytest.mark.parametrize("strides", [(2, 1), (1, 2), (2, 2), (3, 1)])
def test_stem_shape_and_still_images(strides):
    config = tiny_config(stem_strides=strides, image_size=6)
    stem = scramble(Stem(config)).eval()
    image = tiny_images(config, 3).double()
    out = stem(image[None])
    assert out.shape == (config.time_steps, 3, config.tokens_per_side**2, config.embed_dim)
    frames = image.expand(config.time_steps, *image.shape)
    # One convolution of B images against one of T B images: kernels may sum in another order.
    assert torch.allclose(out, stem(frames), rtol=1e-10, atol=1e-12)


def test_tokens_are_numbered_row_by_row():
    config = tiny_config(stem_channels=(), stem_strides=(1,), image_size=6, time_steps=1)
    stem = Stem(config).double().eval()
    image = torch.zeros(1, 1, 1, 6, 6, dtype=torch.float64)
    image[..., 2, 4] = 1
    out = stem(image)[0, 0]
    assert torch.allclose(out[2 * 6 + 4], stem.convs[0].conv.weight[:, 0, 1, 1], rtol=1e-4)
    assert not out[5 * 6 + 4].any()


def test_a_still_image_is_its_own_video():
    config = tiny_config()
    model = settled_model(config).double()
    images = tiny_images(config, 5).double()
    still, video = model(images), model(images.expand(config.time_steps, *images.shape))
    assert torch.allclose(still.logits, video.logits, atol=1e-10)
    assert torch.equal(still.routing[0].gates, video.routing[0].gates)


def test_frames_that_change_are_seen_at_their_step():
    config = tiny_config()
    model = settled_model(config).double()
    frames = tiny_images(config, config.time_steps).double()[:, None]
    same = frames[:1].expand_as(frames)
    assert not torch.equal(model(frames).logits, model(same).logits)


@pytest.mark.parametrize("shape", [(2, 1, 5, 6), (2, 3, 6, 6), (2, 2, 1, 6, 6), (1, 6, 6)])
def test_images_of_the_wrong_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"images have shape .*; needs \(batch, 1, 6, 6\) or 3"):
        SpikingTransformer(tiny_config())(torch.zeros(shape))


def test_logits_are_the_mean_of_the_head_over_steps_and_tokens():
    model = settled_model(tiny_config()).double()
    seen = {}
    model.head_neuron.register_forward_hook(lambda _m, _i, out: seen.update(x=out))
    images = tiny_images(model.config, 2).double()
    logits = model(images).logits
    steps, batch, tokens, _ = seen["x"].shape
    total = torch.zeros_like(logits)
    for t, b, n in itertools.product(range(steps), range(batch), range(tokens)):
        total[b] += model.head.weight @ seen["x"][t, b, n] + model.head.bias
    assert torch.allclose(logits, total / (steps * tokens), rtol=1e-9)


def test_create_model_overrides_the_preset():
    model = create_model("digits", top_k=2, time_steps=2)
    assert (model.config.top_k, model.config.time_steps) == (2, 2)
    assert model.input_shape == (1, 8, 8)
    out = model.eval()(torch.randn(3, 1, 8, 8))
    assert out.logits.shape == (3, 10)
    assert [info.gates.sum(-1).unique().tolist() for info in out.routing] == [[2.0], [2.0]]


@pytest.mark.parametrize("width", [1, 3, 11])
def test_the_width_of_a_dense_mlp_is_its_own(width):
    config = tiny_config(routing="dense", num_experts=1, mlp_width=width)
    mlp = SpikingMLP(config, width)
    assert mlp.up.linear.weight.shape == (width, config.embed_dim)
    assert mlp(spikes(3, 4, 9, 8).float()).shape == (3, 4, 9, 8)
    model = SpikingTransformer(config)
    assert model.blocks[0].mlp.mlp.down.linear.weight.shape == (config.embed_dim, width)


# ---- surrogates


@pytest.mark.parametrize("surrogate", ["atan", "fast_sigmoid", "sigmoid"])
@pytest.mark.parametrize("membrane", [-1e4, -50.0, -5.0, 0.999, 1.001, 5.0, 1e4])
def test_surrogates_have_finite_slopes_far_from_the_threshold(surrogate, membrane):
    """In float32 exp(25 * 3.6) is infinite, and infinity over infinity no number."""
    current = torch.full((1, 3), membrane, requires_grad=True)
    LIF(surrogate=surrogate)(current).sum().backward()
    assert torch.isfinite(current.grad).all()
    if abs(membrane - 1) < 0.01:
        assert (current.grad > 0.1).all()


def test_sigmoid_surrogate_is_the_slope_of_a_sigmoid():
    u = torch.linspace(-0.5, 0.5, 21, dtype=torch.float64)
    current = (u + 1).requires_grad_()
    LIF(surrogate="sigmoid")(current[None]).sum().backward()
    e = (-25 * u).exp()
    assert torch.allclose(current.grad, 25 * e / (1 + e) ** 2)
