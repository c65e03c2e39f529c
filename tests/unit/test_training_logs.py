"""What a training leaves behind to be looked at."""

import csv
import math
import sys
from dataclasses import replace

import pytest
import torch
from small_runs import MODEL, SETTINGS, small_data

from spikingmoe.model import SpikingTransformer
from spikingmoe.train import logs
from spikingmoe.train.activity import Activity
from spikingmoe.train.curves import draw_curves
from spikingmoe.train.fit import train
from spikingmoe.train.health import Health, TrainingError
from spikingmoe.train.logs import read_speeds, table_text
from spikingmoe.train.record import TrainingRecord
from spikingmoe.train.reporting import Position, Watch
from spikingmoe.train.sums import EpochSums


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two epochs of 60 steps."""
    out = tmp_path_factory.mktemp("logs")
    return train(MODEL, replace(SETTINGS, batch_size=2), small_data(120, 32), out)


def table(run):
    with (run.folder / "logs" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_has_a_row_per_epoch_and_one_per_fifty_steps(run):
    rows = table(run)
    places = [(int(row["epoch"]), int(row["step"])) for row in rows]
    assert places == [(0, 50), (0, 60), (1, 50), (1, 60)]
    for row, record in zip(rows[1::2], run.history, strict=True):
        for name in ("loss", "train_accuracy", "validation_accuracy", "learning_rate"):
            assert float(row[name]) == pytest.approx(record[name], rel=1e-5)
        assert float(row["images_per_second"]) > 0
        loads = [float(row[f"expert_load/blocks.0.moe.router/{e}"]) for e in range(3)]
        assert sum(loads) == pytest.approx(1, abs=1e-4)
        assert 0 <= float(row["routing_entropy/blocks.0.moe.router"]) <= 1
        rates = [float(v) for n, v in row.items() if n.startswith("firing_rate/")]
        assert len(rates) > 5
        assert all(0 <= rate <= 1 for rate in rates)
        assert any(rates)
    for row in rows[::2]:
        assert row["train_accuracy"] == ""
        assert float(row["loss"]) > 0
    assert float(rows[0]["learning_rate"]) > float(rows[2]["learning_rate"]) > 0


def test_tensorboard_has_the_same(run):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.folder / "logs"))
    events.Reload()
    loss = events.Scalars("loss")
    assert [e.step for e in loss] == [60, 120]
    assert [e.value for e in loss] == pytest.approx([r["loss"] for r in run.history])
    assert [e.step for e in events.Scalars("step/loss")] == [50, 110]
    assert "firing_rate/head_neuron" in events.Tags()["scalars"]


def test_curves_are_drawn(run):
    assert (run.folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    final = [{"epoch": 0.0, "loss": 1.0, "train_accuracy": 0.5}]
    assert draw_curves(final).startswith(b"\x89PNG"), "a run without validation"


def test_without_tensorboard_it_says_so_once_and_trains(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # as if it were missing
    heard = []
    watch = Watch(notice=heard.append)
    train(MODEL, replace(SETTINGS, epochs=2), small_data(64, 32), tmp_path, watch=watch)
    assert heard == [logs.NO_TENSORBOARD]
    assert "pip install 'spikingmoe[tensorboard]'" in heard[0]
    assert (tmp_path / "logs" / "metrics.csv").exists()
    assert not list(tmp_path.rglob("*tfevents*"))


def test_firing_rates_are_counted():
    """A hand count of one population's spikes, over two batches of different size."""
    torch.manual_seed(0)
    model = SpikingTransformer(MODEL).eval()
    images = small_data(24, 8).train.images
    activity = Activity(model)
    spikes = []
    hook = model.head_neuron.register_forward_hook(lambda _m, _i, out: spikes.append(out))
    activity.start()
    for batch in (images[:16], images[16:]):
        activity.note(model(batch).routing, len(batch))
    activity.stop()
    model(images)
    hook.remove()
    ones = sum(float(s.sum()) for s in spikes[:2]) / sum(s.numel() for s in spikes[:2])
    found = activity.record(torch.device("cpu"))
    assert found["firing_rate/head_neuron"] == pytest.approx(ones)
    assert sum(v for n, v in found.items() if n.startswith("expert_load/")) == pytest.approx(1)
    activity.start()
    activity.stop()
    assert activity.record(torch.device("cpu")) == {}, "nothing was counted"


def test_a_row_that_lacks_something_leaves_it_empty(tmp_path):
    path = tmp_path / "metrics.csv"
    rows = [
        {"epoch": 0.0, "step": 50.0, "loss": 2.25},
        {
            "epoch": 0.0,
            "step": 60.0,
            "loss": 2.5,
            "images_per_second": 1234.5,
            "expert_load/r/0": 1.0,
        },
    ]
    path.write_text(table_text(rows))
    first, second = csv.DictReader(path.read_text().splitlines())
    assert (first["step"], first["loss"], first["expert_load/r/0"]) == ("50", "2.25", "")
    assert second["expert_load/r/0"] == "1"
    assert read_speeds(path) == {0: 1234.5}
    path.write_text("nonsense")
    assert read_speeds(path) == read_speeds(tmp_path / "none.csv") == {}


def test_the_record_survives_a_checkpoint():
    record = TrainingRecord()
    for step in range(120):
        record.note(torch.tensor(float(step)), 0, step, 0.5)
    record.activity = [{"a": 1.0}, {"a": 2.0, "b": 3.0}]
    assert record.steps == [[0.0, 50.0, 24.5, 0.5], [0.0, 100.0, 74.5, 0.5]]
    again = TrainingRecord()
    again.load(record.state())
    assert again.steps == record.steps
    assert again.activity == record.activity
    for step in range(120, 150):
        again.note(torch.tensor(float(step)), 0, step, 0.5)
    assert again.steps[-1][2] == 124.5, "the mean goes on where it was"


def test_sums_weigh_batches_by_their_samples():
    sums = EpochSums()
    logits = torch.eye(4)
    sums.add_training(torch.tensor(1.0), logits, torch.tensor([0, 1, 2, 3]), 4)
    sums.add_training(torch.tensor(4.0), logits[:2], torch.eye(4)[[0, 2]], 2)  # mixed targets
    sums.add_training(torch.tensor(math.nan), logits[:1], torch.tensor([0]), 0)  # a stand-in
    sums.add_validation(logits, torch.tensor([0, 0, 0, 0]), 4)
    assert sums.record() == {
        "loss": pytest.approx(2.0),
        "train_accuracy": pytest.approx(5 / 6),
        "validation_accuracy": 0.25,
    }
    sums.reset(torch.device("cpu"))
    sums.add_training(torch.tensor(1.0), logits, torch.tensor([0, 1, 2, 3]), 4)
    assert "validation_accuracy" not in sums.record()


def test_the_first_loss_that_is_no_number_is_named_also_when_it_is_looked_for_later(monkeypatch):
    health = Health(0.5)
    check, looked = health.check, []
    monkeypatch.setattr(health, "check", lambda: looked.append(1))  # as between two looks
    for step, loss in enumerate([1.0, math.inf, math.nan, 2.0]):
        health.note(torch.tensor(loss), 3, step)
    assert looked
    with pytest.raises(TrainingError, match=r"the loss is inf at epoch 3, step 1; .* below 0\.5"):
        check()


def test_weights_that_are_no_numbers_are_not_kept():
    layer = torch.nn.Linear(2, 2)
    health = Health(0.5)
    health.check(layer)
    with torch.no_grad():
        layer.bias[1] = math.nan
    with pytest.raises(TrainingError, match="weights are no finite numbers"):
        health.check(layer)


def test_the_position_is_told(tmp_path):
    heard: list[Position] = []
    watch = Watch(position=heard.append, every_s=0.0)
    train(MODEL, SETTINGS, small_data(64, 32), tmp_path, watch=watch)
    assert [(p.epoch, p.step, p.steps) for p in heard] == [
        (0, 1, 2),
        (0, 2, 2),
        (1, 1, 2),
        (1, 2, 2),
    ]
    assert all(p.images_per_second > 0 and p.loss > 0 for p in heard)
    assert heard[-1].seconds_left == 0 < heard[0].seconds_left
