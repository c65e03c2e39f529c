"""A window that ends early answers and costs what a window of so many steps does."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import settled_model, tiny_config, tiny_images

from hardware.early_exit import StepRecord, choose_threshold, record_steps, window_energies
from hardware.energy import count_operations, estimate
from hardware.errors import GraphError, HardwareError
from hardware.lowering import lower
from hardware.simulate import simulate, simulate_batches
from spikingmoe.model import SpikingTransformer

FAMILY = [{}, {"hold": "window", "hold_step": 0}, {"attention": "sdsa", "routing": "threshold"}]


def shorter(model, steps):
    """The same weights in windows of `steps` steps."""
    other = SpikingTransformer(replace(model.config, time_steps=steps)).double().eval()
    other.load_state_dict(model.state_dict())
    return other


def recorded(options, samples=6):
    config = tiny_config(**options)
    model, images = settled_model(config).double(), tiny_images(config, samples).double()
    graph = lower(model)
    return model, images, record_steps(graph, simulate_batches(graph, images, size=4))


@pytest.mark.parametrize("options", FAMILY, ids=str)
def test_each_image_is_as_if_run_alone_with_its_own_steps(options):
    model, images, record = recorded(options)
    steps = record.exit_steps(float(np.median(record.margins[:, :-1])))
    assert len(set(steps)) > 1
    executed, answers = record.executed(steps), record.predictions(steps)
    for i, k in enumerate(steps):
        graph = lower(shorter(model, int(k)))
        trace = simulate(graph, images[i : i + 1])
        np.testing.assert_allclose(record.logits[i, k - 1], trace.logits[0], rtol=1e-12)
        assert answers[i] == trace.predictions[0]
        assert executed[i] == count_operations(graph, trace).synops_per_sample


@pytest.mark.parametrize("options", FAMILY, ids=str)
def test_k_steps_are_the_torch_model_of_k_steps(options):
    model, images, record = recorded(options)
    for steps in range(1, model.config.time_steps + 1):
        with torch.no_grad():
            logits = shorter(model, steps)(images).logits.numpy()
        np.testing.assert_allclose(record.logits[:, steps - 1], logits, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("costs", ["horowitz45", "loihi1", "lemaire"])
@pytest.mark.parametrize("options", FAMILY, ids=str)
def test_energies_are_those_of_networks_of_so_many_steps(options, costs):
    model, images, record = recorded(options)
    exits = record.exit_steps(float(np.median(record.margins[:, :-1])))
    whole = model.config.time_steps
    ways = [*range(1, whole + 1), exits]
    traces = simulate_batches(lower(model), images, size=4)
    *fixed, mixed = window_energies(lower(model), traces, ways, costs)
    alone = np.empty((whole, len(images)))
    for k in range(1, whole + 1):
        graph = lower(shorter(model, k))
        own = estimate(graph, simulate(graph, images), costs)
        assert fixed[k - 1] == pytest.approx(own.energy_pj_per_sample.value, rel=1e-12)
        for i in range(len(images)):
            one = estimate(graph, simulate(graph, images[i : i + 1]), costs)
            alone[k - 1, i] = one.energy_pj_per_sample.value
    assert mixed == pytest.approx(alone[exits - 1, np.arange(len(images))].mean(), rel=1e-12)
    assert fixed == sorted(fixed)
    assert fixed[0] < fixed[-1]


def test_a_window_that_ends_before_a_clock_has_no_energy():
    config = tiny_config(hold="window", hold_step=1)
    graph = lower(settled_model(config))
    traces = simulate_batches(graph, tiny_images(config, 2))
    with pytest.raises(GraphError, match=r"clock\.1"):
        window_energies(graph, traces, [1])


def by_hand():
    """Two populations, one step apart; two images, three steps."""
    logits = [[[0.0, 0.1], [0.0, 0.5], [0.0, 0.9]], [[0.4, 0.0], [0.1, 0.0], [0.0, 0.2]]]
    synops = [[[1, 2, 4], [1, 1, 1]], [[10, 20, 40], [10, 10, 10]]]
    return StepRecord(
        logits=np.array(logits), synops=np.array(synops), ahead=np.array([1, 0]), depth=5
    )


def test_worked_values():
    record = by_hand()
    np.testing.assert_allclose(record.margins, [[0.1, 0.5, 0.9], [0.4, 0.1, 0.2]])
    assert record.exit_steps(0.3).tolist() == [2, 1]
    assert record.exit_steps(0.8).tolist() == [3, 3]
    assert record.predictions(np.array([2, 1])).tolist() == [1, 0]
    assert record.executed(np.array([2, 1])).tolist() == [3 + 30, 1 + 10]
    assert record.executed(3).tolist() == [77, 33]
    # The population one step ahead has begun another step when the host hears.
    assert record.executed(np.array([2, 1]), in_flight=True).tolist() == [7 + 30, 2 + 10]
    assert record.latency(np.array([2, 1])).tolist() == [7, 6]
    assert record.interval(np.array([2, 1])).tolist() == [3, 3]  # a whole window: 5 > 3 - 1


def test_the_threshold_costs_no_more_than_allowed():
    record, labels = by_hand(), np.array([1, 1])
    # The second image is right only after the whole window, and sure before it at margins up to 0.4.
    assert choose_threshold(record, labels, loss=0.0) == 0.5
    assert choose_threshold(record, labels, loss=0.5) == 0.1
    assert choose_threshold(record, np.array([0, 1]), loss=0.0) == 0.5


@pytest.mark.parametrize(("loss", "labels", "message"), [
    (-0.1, [0, 1], "loss=-0.1; use a share from 0 to below 1"),
    (0.0, [0], r"labels have shape \(1,\); needs \(2,\)"),
])  # fmt: skip
def test_wrong_choices_are_refused(loss, labels, message):
    with pytest.raises(ValueError, match=message):
        choose_threshold(by_hand(), np.array(labels), loss=loss)


def test_other_traces_are_refused():
    model, images, _ = recorded({})
    graph = lower(model)
    other = lower(shorter(model, 2))
    with pytest.raises(HardwareError, match="recorded from another graph"):
        record_steps(graph, iter([simulate(other, images)]))
    with pytest.raises(HardwareError, match="the trace lacks population"):
        record_steps(graph, iter([simulate(graph, images, record=["input"])]))
    with pytest.raises(HardwareError, match="no samples; record at least 1"):
        record_steps(graph, iter([]))
