"""The running mean of the weights."""

from dataclasses import replace

import pytest
import torch
from small_runs import MODEL, SETTINGS, small_data
from torch import nn

from spikingmoe.train.averaging import WeightAverage, decay_at
from spikingmoe.train.checkpoint import checkpoints, load_run, read_checkpoint
from spikingmoe.train.fit import evaluate, train
from spikingmoe.train.module import TrainingModule


class Holder:
    """As much of a Lightning module as the average looks at."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.model = nn.Module()
        self.model.weight = nn.Parameter(torch.tensor([8.0]))
        self.model.register_buffer("running_mean", torch.tensor([16.0]))
        self.model.register_buffer("batches", torch.tensor(3))

    def put(self, weight, running_mean, batches):
        with torch.no_grad():
            self.model.weight.fill_(weight)
            self.model.running_mean.fill_(running_mean)
            self.model.batches.fill_(batches)

    def values(self):
        return [float(v) for v in self.model.state_dict().values()]

    def load_state_dict(self, state):
        self.model.load_state_dict({k.removeprefix("model."): v for k, v in state.items()})


def averaged(average):
    return [float(average.mean[n]) for n in ("weight", "running_mean", "batches")]


def test_values_worked_out_by_hand():
    """Decay 1/10 at the first step, 2/11 at the second, never above the one asked for."""
    assert [decay_at(step, 0.9) for step in (0, 1)] == [0.1, 2 / 11]
    assert decay_at(10**6, 0.9) == 0.9
    holder, average = Holder(), WeightAverage(decay=0.125)
    average.setup(None, holder, "fit")
    holder.put(18.0, 26.0, 4)
    average.on_train_batch_end(None, holder, None, None, 0)
    assert averaged(average) == pytest.approx([17.0, 25.0, 4.0])  # 0.1 old + 0.9 new
    holder.put(1.0, 9.0, 5)
    average.on_train_batch_end(None, holder, None, None, 1)
    assert averaged(average) == pytest.approx([3.0, 11.0, 5.0])  # 0.125 old + 0.875 new
    assert holder.values() == [1.0, 9.0, 5.0], "what is trained is left alone"


def test_validation_sees_the_mean_and_training_goes_on_with_its_own():
    holder, average = Holder(), WeightAverage(decay=0.5)
    average.setup(None, holder, "fit")
    holder.put(0.0, 0.0, 9)
    average.on_validation_start(None, holder)
    assert holder.values() == [8.0, 16.0, 3.0]
    average.on_validation_end(None, holder)
    assert holder.values() == [0.0, 0.0, 9.0]
    assert averaged(average) == [8.0, 16.0, 3.0]


def test_a_checkpoint_brings_back_both_and_the_number_of_steps():
    holder, average = Holder(), WeightAverage(decay=0.5)
    average.setup(None, holder, "fit")
    for step in range(3):
        holder.put(step, step, step)
        average.on_train_batch_end(None, holder, None, None, step)
    state = {"model." + k: v for k, v in holder.model.state_dict().items()}
    checkpoint = {"state_dict": state}
    average.on_save_checkpoint(None, holder, checkpoint)
    other, again = Holder(), WeightAverage(decay=0.5)
    again.setup(None, other, "fit")
    again.on_load_checkpoint(None, other, checkpoint)
    assert averaged(again) == averaged(average)
    assert other.values() == holder.values()
    assert again.steps == 3
    assert averaged(again) != other.values()


def test_a_run_keeps_and_evaluates_the_mean(tmp_path, monkeypatch):
    """The accuracy of the last validation is that of the model that is loaded, not of the trained one."""
    data = small_data(160, 64)
    trained = {}
    end = TrainingModule.on_train_end

    def on_train_end(self):
        end(self)
        trained.update({n: v.clone() for n, v in self.model.state_dict().items()})

    monkeypatch.setattr(TrainingModule, "on_train_end", on_train_end)
    run = train(MODEL, replace(SETTINGS, ema_decay=0.9, learning_rate=0.02), data, tmp_path)
    kept = run.model.state_dict()
    statistics = [n for n in kept if n.endswith(("running_mean", "running_var"))]
    assert statistics
    for name in ("head.weight", statistics[0], "blocks.0.moe.router.homeostatic_bias"):
        assert not torch.equal(kept[name], trained[name]), name
    content = read_checkpoint(checkpoints(tmp_path)[0])
    assert torch.equal(content["trained_state"]["model.head.weight"], trained["head.weight"])
    counts = [n for n in kept if n.endswith("num_batches_tracked")]
    assert counts
    assert all(int(kept[n]) == 10 for n in counts), "integers are copied"
    assert float(kept["input_limit"]) == pytest.approx(data.input_limit)
    accuracy, _, _ = evaluate(load_run(tmp_path).model, data.validation)
    assert run.history[-1]["validation_accuracy"] == accuracy


def test_without_a_decay_the_trained_weights_are_kept(tmp_path):
    run = train(MODEL, replace(SETTINGS, epochs=1), small_data(64, 32), tmp_path)
    assert "trained_state" not in read_checkpoint(run.path)
