"""Rules for modules of the user's own: the same spikes everywhere, and every mistake named."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from own_networks import settle
from tiny_models import tiny_config, tiny_images
from token_shift import RULES, TokenShift, lower_token_shift
from torch import nn

from hardware.errors import LoweringError
from hardware.lowering import Spikes, lower, record_torch
from hardware.passes.pipeline import prepare
from hardware.simulate import simulate
from hardware.verify import compare_traces
from spikingmoe.layers import LIF, DenseMLP, Readout, Residual, Stem
from spikingmoe.model import SpikingTransformer
from spikingmoe.sequential import SpikingSequential

CONFIG = tiny_config(depth=1, prompt="none", num_experts=2)
DENSE = replace(CONFIG, routing="dense", num_experts=1)
IMAGES = tiny_images(CONFIG, 6)


def settled(model: nn.Module) -> nn.Module:
    return settle(model, lambda number: tiny_images(CONFIG, 16, number))


def model_with(place: str, module: nn.Module) -> SpikingTransformer:
    torch.manual_seed(0)
    model = SpikingTransformer(CONFIG)
    owner, _, name = place.rpartition(".")
    setattr(model.get_submodule(owner), name, module)
    return model


def shifting(place: str = "blocks.0.attention") -> SpikingTransformer:
    return settled(model_with(place, TokenShift(8)))


@pytest.mark.parametrize("residual", ["relay", "unrolled"])
@pytest.mark.parametrize("place", ["blocks.0.attention", "blocks.0.mixing"])
def test_a_module_of_ones_own_sends_the_same_spikes(place, residual):
    model = shifting(place)
    graph = lower(model, residual=residual, rules=RULES)
    torch64 = record_torch(model, IMAGES, residual=residual, rules=RULES)
    ours = simulate(graph, IMAGES)
    comparison = compare_traces(graph, torch64, ours)
    assert comparison.same, comparison.first
    for part in ("x", "mixed"):
        assert 0 < ours.spikes[f"{place}.{part}"].mean() < 1
        assert f"{place}.{part}" in torch64.spikes


def test_both_residual_forms_are_one_integer_network():
    model = shifting()
    left, right = (
        simulate(lower(model, residual=form, rules=RULES), IMAGES, arithmetic="fixed")
        for form in ("relay", "unrolled")
    )
    np.testing.assert_array_equal(left.logits, right.logits)


@pytest.mark.lava
def test_lava_sends_the_same_spikes():
    torch.manual_seed(0)
    layers = [Stem(DENSE), Residual(TokenShift(8)), LIF(), Readout(8, 3)]
    model = settled(SpikingSequential(layers, input_shape=(1, 6, 6), time_steps=3))
    graph = lower(model, rules=RULES)
    assert compare_traces(
        graph, record_torch(model, IMAGES, rules=RULES), simulate(graph, IMAGES)
    ).same
    fixed, few = prepare(graph, "fixed"), IMAGES[:2]
    for one in (graph, fixed):
        lava = simulate(one, few, backend="lava-stock")
        comparison = compare_traces(one, simulate(one, few), lava)
        assert comparison.same, comparison.first


class OwnMLP(DenseMLP):
    """Stands where a block has its mixture; the rule says which population reads the stream."""

    def forward(self, stream, _prompt):
        return (*super().forward(stream), ())


class OwnStem(Stem):
    pass


def test_rules_are_asked_for_stems_and_mixtures_too():
    from hardware.lowering.experts import lower_dense_mlp
    from hardware.lowering.stages import lower_stem

    rules = {OwnMLP: lower_dense_mlp, OwnStem: lower_stem}
    model = model_with("blocks.0.moe", OwnMLP(DENSE))
    model.stem = OwnStem(CONFIG)
    settled(model)
    graph = lower(model, rules=rules)
    torch64 = record_torch(model, IMAGES, rules=rules)
    assert compare_traces(graph, torch64, simulate(graph, IMAGES)).same
    with pytest.raises(LoweringError, match=r"cannot lower 'stem': no rule for OwnStem"):
        lower(model, rules={OwnMLP: lower_dense_mlp})


def test_a_users_rule_goes_before_ours_and_does_not_stay():
    calls = []

    def spying(builder, module, path, stream):
        calls.append(path)
        from hardware.lowering.attention import lower_qk

        lower_qk(builder, module, path, stream)

    model = settled(SpikingTransformer(CONFIG))
    plain = lower(model)
    kind = type(model.blocks[0].attention)
    assert lower(model, rules={kind: spying}).fingerprint == plain.fingerprint
    assert calls == ["blocks.0.attention"]
    assert lower(model).fingerprint == plain.fingerprint
    assert len(calls) == 1


# ---- what is refused


def refused(rule, match, place="blocks.0.attention"):
    with pytest.raises(LoweringError, match=match) as caught:
        lower(model_with(place, TokenShift(8)), rules={TokenShift: rule})
    assert caught.value.module == place


def test_what_a_rule_does_wrong_is_named():
    def raises(builder, module, path, stream):
        return module.no_such_thing

    def adds_no_function(builder, module, path, stream):
        builder.stream_term(stream, "a synapse")

    def adds_no_synapse(builder, module, path, stream):
        builder.stream_term(stream, lambda target: target)

    def unbalances(builder, module, path, stream):
        stream.bias = np.zeros(3)

    refused(lambda *_: None, "the rule for TokenShift added nothing to the stream")
    refused(lambda *_: 3, "the rule for TokenShift returned 3; a branch gives the name")
    refused(lambda *_: "nowhere", "returned 'nowhere', which is no population")
    refused(raises, "the rule for TokenShift failed: AttributeError: .*no_such_thing")
    refused(adds_no_function, "added str as a term of the stream")
    refused(adds_no_synapse, "added str as a term of the stream")
    refused(unbalances, r"left a bias of shape \(3,\); the stream has 8 channels")
    refused(lambda *_: None, "returned None; a layer gives a Stream or Spikes", place="stem")
    refused(lambda *_: Spikes("gone"), "returned 'gone', which is no population", place="stem")


def test_a_module_with_a_rule_stands_where_one_is_asked():
    for place in ("blocks.0.attention.query", "blocks.0.extra", "head"):
        with pytest.raises(LoweringError, match="has a rule, but none is asked") as caught:
            lower(model_with(place, TokenShift(8)), rules=RULES)
        assert caught.value.module == place


def test_without_a_rule_the_module_is_refused_and_a_rule_is_asked_for():
    torch.manual_seed(0)
    model = model_with("blocks.0.attention", TokenShift(8))
    with pytest.raises(LoweringError, match=r"blocks\.0\.attention': no rule for TokenShift"):
        lower(model)
    layers = [Stem(DENSE), Residual(TokenShift(8)), LIF(), Readout(8, 3)]
    network = SpikingSequential(layers, input_shape=(1, 6, 6), time_steps=3)
    with pytest.raises(LoweringError, match=r"rules=\{TokenShift: rule\}"):
        lower(network)


def test_a_neuron_stays_a_lif():
    module = TokenShift(8)
    module.mixed_neuron = nn.ReLU()
    with pytest.raises(LoweringError, match="ReLU is no LIF neuron") as caught:
        lower(model_with("blocks.0.attention", module), rules=RULES)
    assert caught.value.module == "blocks.0.attention.mixed_neuron"


def test_rules_are_functions_by_type_of_module():
    model = SpikingTransformer(CONFIG)
    for rules in (
        {"TokenShift": lower_token_shift},
        {TokenShift: "rule"},
        {int: lower_token_shift},
    ):
        with pytest.raises(TypeError, match="use a type of module and a function"):
            lower(model, rules=rules)
