"""The Norse backend: the same neuron as ours, as stock Norse, and the same network when lowered."""

import copy
import sys

import pytest
import torch
from norse.torch.functional.lif_box import LIFBoxFeedForwardState, LIFBoxParameters
from norse.torch.module.lif_box import LIFBoxCell
from tiny_models import settled_model, tiny_config, tiny_images

from hardware.lowering import lower, record_torch
from hardware.simulate import simulate
from hardware.verify import compare_traces
from spikingmoe.analysis.firing import record_firing
from spikingmoe.layers.neuron import LIF, make_neuron
from spikingmoe.layers.norse_neuron import NorseLIF
from spikingmoe.model import SpikingTransformer

DYADIC = (0.0, 0.25, 0.5, 0.75, 0.875, 4095 / 4096)


def random_currents(dtype=torch.float64):
    generator = torch.Generator().manual_seed(7)
    return torch.randn((6, 40, 25), generator=generator, dtype=dtype) + 0.3


def spikes_and_gradient(neuron, currents):
    leaf = currents.clone().requires_grad_()
    spikes = neuron(leaf)
    weights = torch.randn(spikes.shape, generator=torch.Generator().manual_seed(1))
    (weights.to(spikes) * spikes).sum().backward()
    return spikes.detach(), leaf.grad


@pytest.mark.parametrize("detach_reset", [False, True])
@pytest.mark.parametrize("surrogate", ["atan", "fast_sigmoid", "sigmoid"])
@pytest.mark.parametrize("decay", DYADIC)
def test_spikes_and_gradients_are_ours(decay, surrogate, detach_reset):
    options = {"membrane_decay": decay, "surrogate": surrogate, "detach_reset": detach_reset}
    ours, norse = (
        spikes_and_gradient(kind(threshold=0.75, **options), random_currents())
        for kind in (LIF, NorseLIF)
    )
    assert torch.equal(ours[0], norse[0])
    assert 0.1 < float(ours[0].mean()) < 0.9, "a test without spikes shows nothing"
    # The reset adds a zero and the order of two sums differs: rounding of float32 surrogates.
    largest = float(ours[1].abs().max())
    assert torch.allclose(ours[1], norse[1], rtol=1e-6, atol=1e-6 * largest)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_spikes_are_equal_bit_for_bit_at_any_rounding(dtype):
    currents = torch.randn((8, 20_000), generator=torch.Generator().manual_seed(0)).to(dtype)
    for decay in DYADIC:
        assert torch.equal(
            LIF(membrane_decay=decay)(currents), NorseLIF(membrane_decay=decay)(currents)
        )


def stock_spikes(currents, decay, scaled=True):
    """Norse's own cell, stepped as its tutorials do; dt is one step."""
    parameters = LIFBoxParameters(
        tau_mem_inv=torch.tensor(1.0 - decay, dtype=currents.dtype), v_th=torch.tensor(1.0)
    )
    cell, spikes, state = LIFBoxCell(parameters, dt=1.0), [], None
    for current in currents / (1 - decay) if scaled else currents:
        spike, state = cell(current, state)
        spikes.append(spike)
    return torch.stack(spikes)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.75])
def test_it_is_stock_norse_with_a_scaled_current(decay):
    """On dyadic currents, whose sums are exact in either order; many land on the threshold."""
    generator = torch.Generator().manual_seed(3)
    currents = torch.randint(-4, 9, (6, 2000), generator=generator).double() / 8
    assert torch.equal(stock_spikes(currents, decay), NorseLIF(membrane_decay=decay)(currents))
    assert (currents[0] == 1.0).any()
    if decay:
        unscaled = stock_spikes(currents, decay, scaled=False)
        assert not torch.equal(unscaled, NorseLIF(membrane_decay=decay)(currents))


def test_a_step_takes_and_gives_norses_state():
    neuron = NorseLIF(membrane_decay=0.5)
    state = LIFBoxFeedForwardState(v=torch.tensor([0.5, 1.0]))
    spikes, state = neuron.step(torch.tensor([0.5, 1.0]), state)
    assert isinstance(state, LIFBoxFeedForwardState)
    assert spikes.tolist() == [0.0, 1.0]
    assert state.v.tolist() == [0.75, 0.0]


def test_a_decay_that_norses_parameter_would_round_is_refused():
    with pytest.raises(ValueError, match=r"membrane_decay=0\.1 is not exact .* such as 0\.1000976"):
        NorseLIF(membrane_decay=0.1)


def test_make_neuron_hands_everything_on():
    config = tiny_config(
        neuron="norse", membrane_decay=0.25, threshold=0.5, detach_reset=True, surrogate="sigmoid"
    )
    neuron = make_neuron(config)
    assert isinstance(neuron, NorseLIF)
    assert (neuron.membrane_decay, neuron.firing_threshold) == (0.25, 0.5)
    assert neuron.detach_reset
    leaf = torch.tensor([[0.4]], requires_grad=True)
    neuron(leaf).sum().backward()
    slope = torch.sigmoid(torch.tensor(-2.5))
    assert torch.allclose(leaf.grad, 25 * slope * (1 - slope), rtol=1e-5)


class NoNorse:
    """A finder in front of all others that finds neither Norse nor nir."""

    def __init__(self, missing):
        self.missing = missing

    def find_spec(self, name, _path=None, _target=None):
        if name.split(".")[0] == self.missing:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)


@pytest.mark.parametrize(
    ("missing", "command"),
    [
        ("norse", "use `pip install --no-deps norse`"),
        ("nirtorch", "use `pip install nir nirtorch && pip install --no-deps norse`"),
    ],
)
def test_without_norse_the_message_has_the_command(missing, command, monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [NoNorse(missing), *sys.meta_path])
    for name in [n for n in sys.modules if n.split(".")[0] in ("norse", missing)]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ImportError, match=rf"neuron='norse' needs norse, and {missing}") as error:
        make_neuron(tiny_config(neuron="norse"))
    assert command in str(error.value)
    assert "\n" not in str(error.value)


# ---- the same network


@pytest.fixture(scope="module")
def pair():
    """(snnTorch-based, Norse) with the same weights."""
    ours = settled_model(tiny_config())
    norse = SpikingTransformer(tiny_config(neuron="norse"))
    norse.load_state_dict(ours.state_dict())
    ours_again = SpikingTransformer(tiny_config())
    ours_again.load_state_dict(norse.state_dict())
    return ours, norse.eval()


def test_the_same_weights_give_the_same_spikes(pair):
    ours, norse = pair
    images = tiny_images(ours.config, 12)
    assert sum(isinstance(m, NorseLIF) for m in norse.modules()) > 5
    assert not any(isinstance(m, LIF) for m in norse.modules())
    left, right = (record_torch(model, images) for model in pair)
    assert set(left.spikes) == set(right.spikes)
    for name, spikes in left.spikes.items():
        assert (spikes == right.spikes[name]).all(), name
    assert (left.logits == right.logits).all()


def test_lowered_it_is_the_same_graph_and_the_reference_agrees(pair):
    ours, norse = pair
    images = tiny_images(ours.config, 12)
    graph = lower(norse)
    assert graph.fingerprint == lower(ours).fingerprint
    comparison = compare_traces(graph, record_torch(norse, images), simulate(graph, images))
    assert comparison.compared > 10_000
    assert (comparison.differing, comparison.predictions_differ) == (0, 0)


def test_a_changed_neuron_is_found(pair):
    """The comparison can fail: Norse computes with another decay than the neuron says."""
    other = copy.deepcopy(pair[1])
    images = tiny_images(other.config, 12)
    graph = lower(other)
    other.head_neuron.p = other.head_neuron.p._replace(tau_mem_inv=1.0)
    assert compare_traces(graph, record_torch(other, images), simulate(graph, images)).differing


def test_firing_is_recorded(pair):
    images = tiny_images(pair[0].config, 4)
    rates = []
    for model in pair:
        with record_firing(model) as record, torch.no_grad():
            model(images)
        rates.append({name: float(f.spikes.sum()) for name, f in record.populations.items()})
    assert rates[0] == rates[1]
    assert sum(rates[1].values()) > 0
