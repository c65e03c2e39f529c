"""The SDprompt, its cortical feedback and its ablations against stimuli and loops made by hand."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_config, tiny_images

from spikingmoe.layers.prompt import (
    NOISE_RATE,
    FeedbackPrompt,
    NoisePrompt,
    RelayCells,
    RelayPool,
    SDPrompt,
    difference_of_gaussians,
    make_prompt,
    opponent_channels,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def scramble(module):
    """Norms and their statistics, fields and pools off their initial values; float64."""
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if "running_var" in name:
            tensor.data.uniform_(0.02, 0.2)
        elif tensor.dtype != torch.long and any(
            word in name for word in ("running_mean", "norm", "fields", "pool.weight")
        ):
            tensor.data.add_(0.3 * torch.randn_like(tensor))
    return module.double().eval()


def spikes(*shape):
    return (torch.rand(*shape) < 0.4).double()


def relay_counts(image):
    """Spikes of each relay cell over the window, (R, height, width), for one (C, height, width)."""
    config = tiny_config(
        input_channels=len(image), image_size=image.shape[-1], relay_kernel=5, prompt_grid=1
    )
    pool = RelayPool(config)
    current = pool.cells(image[None, None])
    return pool.relay_neuron(current.expand(config.time_steps, *current.shape[1:])).sum(0)[0]


# ---- relay cells


@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_receptive_field_sums_to_zero_and_is_centre_surround(kernel):
    field = difference_of_gaussians(kernel)
    assert float(field.sum()) == pytest.approx(0, abs=1e-6)
    assert float(field.square().sum()) == pytest.approx(1, abs=1e-6)
    middle = kernel // 2
    assert field[middle, middle] > 0 > field[0, 0]
    assert torch.equal(field, field.T)
    assert torch.equal(field, field.flip(0))


def test_opponent_channels():
    assert opponent_channels(1).tolist() == [[1.0]]
    assert opponent_channels(2).tolist() == [[1.0, 0.0], [0.0, 1.0]]
    luminance, red_green, blue_yellow = opponent_channels(3)
    assert float(luminance.sum()) == pytest.approx(1)
    assert float(red_green.sum()) == 0
    assert float(blue_yellow.sum()) == 0
    with pytest.raises(ValueError, match="input_channels=4"):
        opponent_channels(4)


@pytest.mark.parametrize("stride", [2, 3])
def test_sparse_cells_are_every_nth_of_the_dense_ones(stride):
    dense, sparse = (
        RelayCells(tiny_config(input_channels=3, relay_stride=s, prompt_grid=1))
        for s in (1, stride)
    )
    sparse.load_state_dict(dense.state_dict())
    frames = torch.randn(1, 2, 3, 6, 6)
    assert torch.allclose(sparse(frames), dense(frames)[..., ::stride, ::stride], atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_off_cells_are_minus_on_cells(channels):
    cells = RelayCells(tiny_config(input_channels=channels))
    on, off = cells.weight().chunk(2)
    assert torch.equal(on, -off)
    assert on.abs().sum() > 0
    assert cells.fields.requires_grad


@pytest.mark.parametrize(("pixel", "winner"), [(1.0, 0), (-1.0, 1)])
def test_on_cells_see_bright_dots_and_off_cells_dark_ones(pixel, winner):
    image = torch.zeros(1, 7, 7)
    image[0, 3, 2] = pixel  # 1.57 in the centre; 0.45 beside it, whose sums stay below 0.91
    counts = relay_counts(image)
    assert counts[winner, 3, 2] == tiny_config().time_steps
    assert counts[1 - winner, 3, 2] == 0
    assert counts[winner].count_nonzero() == 1, "the dot has one centre"


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_even_light_silences_relay_cells(channels):
    inner = relay_counts(torch.full((channels, 10, 10), 20.0))[:, 2:-2, 2:-2]
    assert inner.sum() == 0
    dark = relay_counts(torch.full((channels, 10, 10), -20.0))[:, 2:-2, 2:-2]
    assert dark.sum() == 0


@pytest.mark.parametrize(
    ("colour", "on", "off"),
    [
        ((6.0, 0.0, 0.0), {0, 1}, {2}),  # red: bright, red against green, not blue
        ((0.0, 6.0, 0.0), {0}, {1, 2}),
        ((0.0, 0.0, 6.0), {0, 2}, set()),  # blue: nothing for red against green
        ((6.0, 6.0, 0.0), {0}, {2}),  # yellow
        ((6.0, 6.0, 6.0), {0}, set()),  # white: no colour
        ((6.0, -6.0, 0.0), {1}, set()),  # isoluminant red on green: no brightness
    ],
)
def test_colour_cells_are_opponent(colour, on, off):
    image = torch.zeros(3, 7, 7)
    image[:, 3, 3] = torch.tensor(colour)
    centre = relay_counts(image)[:, 3, 3]
    assert {c for c in range(3) if centre[c]} == on
    assert {c for c in range(3) if centre[3 + c]} == off


@pytest.mark.parametrize("polarity", [0, 1])
def test_event_cells_see_one_polarity(polarity):
    image = torch.zeros(2, 7, 7)
    image[polarity, 3, 3] = 4.0
    counts = relay_counts(image)
    assert counts[polarity, 3, 3] > 0
    assert counts[1 - polarity].sum() == 0
    assert counts[3 - polarity].sum() == 0


# ---- pool and prompt


def pooled_by_loops(pool, frames, steps):
    """RelayPool by its definition: relay cells over time, then a weighted sum per window."""
    weight, field = pool.pool.weight[:, 0].detach(), pool.cells.weight().detach()
    channels, window, size = len(weight), weight.shape[-1], frames.shape[-1]
    half, grid, decay = field.shape[-1] // 2, size // weight.shape[-1], 0.5
    padded = torch.nn.functional.pad(frames, (half, half, half, half))
    out = torch.zeros(steps, frames.shape[1], channels, grid, grid, dtype=torch.float64)
    for b in range(frames.shape[1]):
        for r in range(channels):
            for y in range(size):
                for x in range(size):
                    v = 0.0
                    for t in range(steps):
                        frame = padded[t if len(frames) > 1 else 0, b]
                        patch = frame[:, y : y + 2 * half + 1, x : x + 2 * half + 1]
                        u = decay * v + float((patch * field[r]).sum())
                        spike = u > 1.0
                        v = 0.0 if spike else u
                        if spike:
                            gy, gx = y // window, x // window
                            out[t, b, r, gy, gx] += weight[r, y % window, x % window]
    return out.flatten(2)


@pytest.mark.parametrize(("channels", "moving"), [(1, False), (3, False), (2, True)])
def test_relay_pool_equals_its_definition(channels, moving):
    config = tiny_config(input_channels=channels, image_size=4, time_steps=2)
    pool = scramble(RelayPool(config))
    frames = 2 * torch.randn(2 if moving else 1, 2, channels, 4, 4, dtype=torch.float64)
    got = pool(frames)
    expected = pooled_by_loops(pool, frames, 2)
    assert got.shape == (2, 2, 2 * len(opponent_channels(channels)) * 4)
    assert expected.abs().sum() > 1
    assert torch.allclose(got, expected, atol=1e-12)  # float64 sums in another order


def test_prompt_is_binary_and_the_same_for_equal_frames():
    config = tiny_config()
    prompt = scramble(SDPrompt(config))
    image = tiny_images(config, 4).double()
    still = prompt(image[None])
    assert still.shape == (config.time_steps, 4, config.prompt_width)
    assert torch.equal(still, still.bool().double())
    assert 0 < still.mean() < 1
    assert torch.equal(still, prompt(image.expand(config.time_steps, *image.shape)))


@pytest.mark.parametrize("kind", ["learned", "random"])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_prompt_depends_on_the_image(kind, channels):
    config = tiny_config(prompt=kind, input_channels=channels)
    prompt = make_prompt(config).train()
    out = prompt(tiny_images(config, 32)[None])
    assert len(torch.unique(out.transpose(0, 1).flatten(1), dim=0)) > 5


def step_of_training(prompt, config):
    """One step of plain gradient descent on a loss that wants every bit to spike."""
    out = prompt.train()(tiny_images(config, 16)[None])
    head = torch.ones(config.prompt_width, requires_grad=True)
    (1 - out @ head).square().mean().backward()
    with torch.no_grad():
        for parameter in prompt.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
    assert head.grad.abs().sum() > 0, "what reads the prompt still learns"


def test_learned_prompt_trains_all_of_itself():
    config = tiny_config()
    prompt = SDPrompt(config)
    before = {name: p.detach().clone() for name, p in prompt.named_parameters()}
    step_of_training(prompt, config)
    for name, parameter in prompt.named_parameters():
        assert not torch.equal(parameter, before[name]), name
    assert {name.split(".")[-2] for name in before} == {"cells", "pool", "linear", "norm"}


def test_random_prompt_stays_as_it_was_initialised():
    config = tiny_config(prompt="random")
    torch.manual_seed(0)
    learned = SDPrompt(tiny_config())
    torch.manual_seed(0)
    prompt = SDPrompt(config)
    step_of_training(prompt, config)
    trained = dict(learned.named_parameters())
    assert list(trained) == [name for name, _ in prompt.named_parameters()]
    for name, parameter in prompt.named_parameters():
        assert parameter.grad is None, name
        assert not parameter.requires_grad, name
        assert torch.equal(parameter, trained[name]), name
    on, off = prompt.relay_pool.cells.fields.chunk(2)
    assert torch.equal(on, -off)
    running = prompt.project.norm.running_mean
    assert not torch.equal(running, torch.zeros_like(running)), "statistics follow the data"


# ---- noise


def test_noise_does_not_depend_on_the_image():
    config = tiny_config(prompt="noise", prompt_width=50, time_steps=6)
    prompt = NoisePrompt(config)
    for training in (True, False):
        prompt.train(training)
        torch.manual_seed(1)
        first = prompt(tiny_images(config, 40)[None])
        torch.manual_seed(1)
        assert torch.equal(first, prompt(torch.full((6, 40, 1, 6, 6), 9.0)))
        assert first.shape == (6, 40, 50)
        assert set(first.unique().tolist()) == {0.0, 1.0}
        # 12,000 bits: six standard deviations are 0.027
        assert float(first.mean()) == pytest.approx(NOISE_RATE, abs=0.027)
        assert len(torch.unique(first.flatten(0, 1), dim=0)) == 240, "bits differ everywhere"


def test_noise_is_drawn_anew_while_training_and_fixed_in_evaluation():
    config = tiny_config(prompt="noise", prompt_width=20)
    prompt, frames = NoisePrompt(config), tiny_images(config, 9)[None]
    assert not torch.equal(prompt.train()(frames), prompt(frames))
    state = torch.get_rng_state()
    fixed = prompt.eval()(frames)
    assert torch.equal(fixed, prompt(frames))
    assert torch.equal(state, torch.get_rng_state()), "evaluation leaves the global generator alone"
    for batch in (1, 2, 7):
        assert torch.equal(prompt(frames[:, :batch]), fixed[:, :batch])
    assert prompt(frames.double()).dtype == torch.float64


# ---- cortical feedback


def test_feedback_prompt_equals_its_definition():
    config = tiny_config(input_channels=2, time_steps=4)
    prompt = scramble(FeedbackPrompt(config, previous_dim=3))
    pooled = torch.randn(4, 2, 4 * config.prompt_grid**2, dtype=torch.float64)
    previous = spikes(4, 2, 5, 3)
    got = prompt(pooled, previous)
    prompt.requires_grad_(False)

    def norm(layer, value, m):
        n = layer.norm
        shifted = (value - n.running_mean[m]) / torch.sqrt(n.running_var[m] + n.eps)
        return float(n.weight[m] * shifted + n.bias[m])

    for b in range(2):
        for m in range(config.prompt_width):
            v = 0.0
            for t in range(4):
                relay = sum(prompt.project.linear.weight[m, i] * pooled[t, b, i] for i in range(16))
                cortex = sum(
                    prompt.feedback.linear.weight[m, d] * previous[t, b, n, d] / 5
                    for n in range(5)
                    for d in range(3)
                )
                u = 0.5 * v + norm(prompt.project, relay, m) + norm(prompt.feedback, cortex, m)
                assert got[t, b, m] == float(u > 1.0), (t, b, m)
                v = 0.0 if u > 1.0 else u
    assert 0 < got.mean() < 1


def test_feedback_changes_with_the_block_before_and_only_then():
    config = tiny_config()
    prompt = scramble(FeedbackPrompt(config, previous_dim=8))
    pooled = torch.randn(3, 6, 8, dtype=torch.float64)
    previous = spikes(3, 6, 9, 8)
    first = prompt(pooled, previous)
    assert not torch.equal(first, prompt(pooled, 1 - previous))
    tokens = previous[:, :, torch.randperm(9)]
    assert torch.allclose(first, prompt(pooled, tokens)), "the mean does not know places"
    assert not torch.equal(first, prompt(-pooled, previous))


def test_both_terms_of_a_feedback_prompt_learn():
    prompt = FeedbackPrompt(tiny_config(), previous_dim=8).train()
    pooled = torch.randn(3, 16, 8, requires_grad=True)
    previous = spikes(3, 16, 9, 8).float().requires_grad_()
    (prompt(pooled, previous) * torch.randn(3, 16, 5)).sum().backward()
    for name, parameter in prompt.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
    assert pooled.grad.abs().sum() > 0
    assert previous.grad.abs().sum() > 0


def test_the_first_block_has_no_feedback():
    config = tiny_config()
    prompt = FeedbackPrompt(config, previous_dim=None).eval()
    pooled, previous = torch.randn(3, 2, 8), spikes(3, 2, 9, 8).float()
    assert prompt(pooled, None).shape == (3, 2, config.prompt_width)
    with pytest.raises(ValueError, match="the first block has none before it; give previous=None"):
        prompt(pooled, previous)
    with pytest.raises(ValueError, match="feedback needs the spikes of the block before, got None"):
        FeedbackPrompt(config, previous_dim=8)(pooled, None)


# ---- which module


def test_make_prompt_follows_the_configuration():
    kinds = {kind: make_prompt(tiny_config(prompt=kind)) for kind in ("learned", "random")}
    assert [type(p) for p in kinds.values()] == [SDPrompt, SDPrompt]
    assert make_prompt(tiny_config(prompt="none")) is None
    assert make_prompt(tiny_config(routing="dense", num_experts=1)) is None
    assert isinstance(make_prompt(tiny_config(prompt="noise")), NoisePrompt)
    assert isinstance(make_prompt(tiny_config(depth=2, cortical_feedback=True)), RelayPool)
    shapes = [{n: t.shape for n, t in p.state_dict().items()} for p in kinds.values()]
    assert shapes[0] == shapes[1]
