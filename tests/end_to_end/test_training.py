"""Training, checkpoints and exact resume on a corner of the digits."""

import subprocess
import sys
from dataclasses import fields, replace

import pytest
import torch
from small_runs import MODEL, SETTINGS, differences, flat, small_data

from hardware.errors import FileError
from hardware.files import write_archive
from spikingmoe.config import dense_twin, relu_twin
from spikingmoe.data.fit import check_shapes
from spikingmoe.data.image_data import Split
from spikingmoe.layers import router
from spikingmoe.layers.router import RoutingLosses
from spikingmoe.model import SpikingTransformer
from spikingmoe.train import fit
from spikingmoe.train.checkpoint import (
    FORMAT_VERSION,
    KIND,
    ArchiveIO,
    checkpoints,
    load_run,
    read_checkpoint,
)
from spikingmoe.train.fit import evaluate, train
from spikingmoe.train.module import TrainingError, TrainingModule
from spikingmoe.train.optim import temperature

THREE = replace(SETTINGS, epochs=3)


class Stop(Exception):
    """Ends training from inside."""


@pytest.fixture(scope="module")
def data():
    return small_data()


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data):
    """A run of three epochs that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    lines = []
    run = train(MODEL, THREE, data, out, report=lambda record, _n: lines.append(record))
    assert [line["epoch"] for line in lines] == [0.0, 1.0, 2.0]
    return run


def newest(run_folder):
    return checkpoints(run_folder)[0]


def stop_at(monkeypatch, epoch, step):
    """Make training fail at one batch."""
    original = TrainingModule.training_step

    def training_step(self, batch, batch_index):
        if (self.current_epoch, batch_index) == (epoch, step):
            raise Stop
        return original(self, batch, batch_index)

    monkeypatch.setattr(TrainingModule, "training_step", training_step)


def test_training_leaves_two_checkpoints_and_a_history(whole):
    names = sorted(p.name.partition(".tfevents")[0] for p in whole.folder.rglob("*"))
    kept = ["epoch-0002.safetensors", "epoch-0003.safetensors"]
    assert names == ["checkpoints", "curves.png", *kept, "events.out", "logs", "metrics.csv"]
    assert whole.epoch == 3
    assert [r["epoch"] for r in whole.history] == [0.0, 1.0, 2.0]
    for record in whole.history:
        assert 0 <= record["train_accuracy"] <= 1
        assert 0 <= record["validation_accuracy"] <= 1
        assert record["loss"] > 0
    assert {"python", "torch", "snntorch", "lightning", "numpy", "spikingmoe"} == set(
        whole.versions
    )
    assert whole.path.parent.parent == whole.folder


def test_a_checkpoint_holds_everything_that_resuming_needs(whole):
    paths = set(flat(read_checkpoint(whole.path)))
    state = {p for p in paths if p.startswith("/state_dict/")}
    assert any(p.endswith("homeostatic_bias") for p in state)
    assert any(p.endswith("running_var") for p in state)
    assert any(p.startswith("/optimizer_states/0/state/") for p in paths)
    assert any(p.startswith("/lr_schedulers/0/") for p in paths)
    bias = whole.model.blocks[0].moe.router.homeostatic_bias
    assert bias.any(), "homeostasis moved nothing, so its restoring is not tested"


def test_training_twice_gives_the_same_bits(whole, data, tmp_path):
    train(MODEL, THREE, data, tmp_path)
    assert differences(newest(tmp_path), whole.path) == []


@pytest.mark.parametrize(("epoch", "step"), [(1, 0), (1, 3), (2, 2)])
def test_resuming_gives_the_same_bits(whole, data, tmp_path, monkeypatch, epoch, step):
    with monkeypatch.context() as patched:
        stop_at(patched, epoch, step)
        with pytest.raises(Stop):
            train(MODEL, THREE, data, tmp_path)
    assert load_run(tmp_path).epoch == epoch
    torch.manual_seed(12345)  # resume must not depend on what the process did before
    resumed = train(MODEL, THREE, data, tmp_path, resume=True)
    assert differences(newest(tmp_path), whole.path) == []
    assert resumed.history == whole.history


@pytest.mark.parametrize(
    "options",
    [
        {"routing": "noisy_top_k"},
        {"prompt": "noise"},
        {"chain": "depth", "chain_length": 2},
        {"routing": "hierarchical", "num_experts": 4, "num_groups": 2},
    ],
    ids=["noisy_top_k", "noise", "chain", "hierarchical"],
)
def test_resuming_repeats_the_noise_and_keeps_what_is_shared(data, tmp_path, monkeypatch, options):
    model = replace(MODEL, **options)
    whole = train(model, SETTINGS, data, tmp_path / "whole")
    with monkeypatch.context() as patched:
        stop_at(patched, 1, 2)
        with pytest.raises(Stop):
            train(model, SETTINGS, data, tmp_path / "cut")
    torch.manual_seed(999)
    torch.rand(7)
    train(model, SETTINGS, data, tmp_path / "cut", resume=True)
    assert differences(newest(tmp_path / "cut"), whole.path) == []
    images = data.test.images[:8]
    loaded = load_run(tmp_path / "cut").model
    assert torch.equal(loaded(images).logits, whole.model(images).logits)


def test_noise_is_another_at_each_step(data, tmp_path, monkeypatch):
    """Otherwise repeating it would be no feat."""
    drawn = []
    original = router.add_noise

    def add_noise(scores, raw_scale):
        noisy = original(scores, raw_scale)
        noise = (noisy - scores) / torch.nn.functional.softplus(raw_scale)
        drawn.append(tuple(noise.detach().flatten()[:5].round(decimals=3).tolist()))
        return noisy

    monkeypatch.setattr(router, "add_noise", add_noise)
    train(replace(MODEL, routing="noisy_top_k"), SETTINGS, data, tmp_path)
    assert len(drawn) == 2 * 5  # epochs, batches of 32 from 160
    assert len(set(drawn)) == len(drawn)


# ---- what the recipe's numbers do


def module_of(settings, data, **options):
    torch.manual_seed(0)
    model = SpikingTransformer(replace(MODEL, **options)).train()
    return TrainingModule(model, settings, data, 5)


WEIGHTS = [f"{f.name}_weight" for f in fields(RoutingLosses)]
NO_WEIGHTS = replace(SETTINGS, **dict.fromkeys(WEIGHTS, 0.0))


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize(("depth", "links"), [(1, 1), (2, 2)])
def test_each_weight_adds_its_loss_averaged_over_the_routers(data, weight, depth, links):
    options = {"routing": "threshold", "depth": depth, "chain_length": links}
    options["chain"] = "depth" if links > 1 else "none"
    batch = (data.train.images[:32], data.train.labels[:32])
    plain, weighed = (
        module_of(settings, data, **options)
        for settings in (NO_WEIGHTS, replace(NO_WEIGHTS, **{weight: 0.75}))
    )
    seen = []
    weighed.model.register_forward_hook(lambda _m, _i, out: seen.append(out.routing))
    without, with_it = plain.training_step(batch, 0), weighed.training_step(batch, 0)
    (routing,) = seen
    assert len(routing) == depth * links
    values = [float(getattr(info.losses, weight.removesuffix("_weight"))) for info in routing]
    mean = sum(values) / len(values)
    assert abs(mean) > 1e-6
    # float32: the difference of two losses of about 2.3
    assert float(with_it - without) == pytest.approx(0.75 * mean, rel=1e-3, abs=1e-6)
    for module, loss in ((plain, without), (weighed, with_it)):
        module.zero_grad()
        loss.backward()
    pairs = zip(plain.parameters(), weighed.parameters(), strict=True)
    assert any(not torch.equal(p.grad, q.grad) for p, q in pairs), "and its gradient"


def test_dense_models_have_no_routing_loss(data):
    batch = (data.train.images[:32], data.train.labels[:32])
    losses = []
    for settings in (NO_WEIGHTS, replace(NO_WEIGHTS, balance_weight=1e6)):
        torch.manual_seed(0)
        model = SpikingTransformer(dense_twin(MODEL)).train()
        losses.append(float(TrainingModule(model, settings, data, 5).training_step(batch, 0)))
    assert losses[0] == losses[1]


def test_the_homeostatic_rate_moves_the_biases(data):
    batch = (data.train.images[:32], data.train.labels[:32])
    for rate in (0.0, 0.125):
        module = module_of(replace(SETTINGS, homeostatic_rate=rate), data, routing="threshold")
        module.training_step(batch, 0)
        (bias,) = [r.homeostatic_bias for r in module.model.routers()]
        assert set(bias.abs().tolist()) <= {0.0, rate}
        assert bool(bias.any()) is (rate > 0)


@pytest.mark.parametrize(
    ("epoch", "expected"), [(0, 8.0), (1, 4.0), (2, 2.0), (3, 1.0), (4, 1.0), (100, 1.0)]
)
def test_temperature_falls_geometrically_to_one(epoch, expected):
    assert temperature(epoch, initial=8.0, epochs=3) == pytest.approx(expected)
    assert temperature(epoch, initial=1.0, epochs=0) == 1.0


def test_each_epoch_sets_its_temperature_also_when_resumed(data, tmp_path, monkeypatch):
    settings = replace(THREE, initial_temperature=4.0, temperature_epochs=2)
    heard = []
    original = SpikingTransformer.set_temperature

    def set_temperature(self, value):
        heard.append(value)
        original(self, value)
        assert {r.choose.temperature for r in self.routers()} == {value}

    monkeypatch.setattr(SpikingTransformer, "set_temperature", set_temperature)
    whole = train(MODEL, settings, data, tmp_path / "whole")
    assert heard == pytest.approx([4.0, 2.0, 1.0])
    with monkeypatch.context() as patched:
        stop_at(patched, 1, 2)
        with pytest.raises(Stop):
            train(MODEL, settings, data, tmp_path / "cut")
    heard.clear()
    train(MODEL, settings, data, tmp_path / "cut", resume=True)
    assert heard == pytest.approx([2.0, 1.0])
    assert differences(newest(tmp_path / "cut"), whole.path) == []
    plain = train(MODEL, THREE, data, tmp_path / "plain")
    assert not torch.equal(plain.model.head.weight, whole.model.head.weight)


def test_the_comparison_can_fail(whole, data, tmp_path):
    train(MODEL, replace(THREE, seed=1), data, tmp_path)
    paths = differences(newest(tmp_path), whole.path)
    assert "/state_dict/model.head.weight" in paths
    assert any("optimizer_states" in p for p in paths)


def test_resuming_a_finished_run_changes_nothing(whole, data):
    before = whole.path.read_bytes()
    again = train(MODEL, THREE, data, whole.folder, resume=True)
    assert whole.path.read_bytes() == before
    assert again.epoch == 3


def test_resuming_without_a_run_starts_one(data, tmp_path):
    run = train(MODEL, replace(SETTINGS, epochs=1), data, tmp_path / "new", resume=True)
    assert run.epoch == 1


def copy_run(run, folder):
    (folder / "checkpoints").mkdir(parents=True)
    for path in checkpoints(run.folder):
        (folder / "checkpoints" / path.name).write_bytes(path.read_bytes())
    return checkpoints(folder)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip, lambda p: p.write_bytes(b"")])
def test_a_damaged_newest_checkpoint_falls_back_on_the_one_before(whole, data, tmp_path, damage):
    last, _ = copy_run(whole, tmp_path)
    damage(last)
    assert load_run(tmp_path).epoch == 2
    with pytest.raises(FileError, match=last.name):
        load_run(last)
    train(MODEL, THREE, data, tmp_path, resume=True)
    assert differences(last, whole.path) == []


def test_two_damaged_checkpoints_are_an_error(whole, data, tmp_path):
    paths = copy_run(whole, tmp_path)
    for path in paths:
        flip(path)
    with pytest.raises(FileError, match=r"epoch-0003\.safetensors: was cut short or altered"):
        load_run(tmp_path)
    with pytest.raises(FileError, match="altered"):
        train(MODEL, THREE, data, tmp_path, resume=True)
    assert len(checkpoints(tmp_path)) == 2, "nothing is deleted"


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        ({"top_k": 2}, {}, r"top_k=1, now 2"),
        ({}, {"epochs": 5}, r"epochs=3, now 5"),
        ({}, {"seed": 7}, r"seed=0, now 7"),
    ],
)
def test_a_run_with_other_settings_is_not_resumed(whole, data, model, settings, message):
    with pytest.raises(ValueError, match=f"was trained with other settings .*{message}"):
        train(replace(MODEL, **model), replace(THREE, **settings), data, whole.folder, resume=True)


def test_a_run_is_not_overwritten(whole, data):
    with pytest.raises(ValueError, match="holds a run already; use --resume, or another --out"):
        train(MODEL, THREE, data, whole.folder)


def test_a_loss_that_is_no_number_stops_with_the_step(data, tmp_path):
    with pytest.raises(
        TrainingError, match=r"the loss is (nan|inf) at epoch 0, step 1; .*1e\+38"
    ) as caught:
        train(MODEL, replace(SETTINGS, learning_rate=1e38), data, tmp_path)
    assert "resume" not in str(caught.value), "a run is never resumed with another learning rate"
    assert checkpoints(tmp_path) == []


@pytest.mark.parametrize("twin", [dense_twin, relu_twin])
def test_twins_train_by_the_same_recipe(data, tmp_path, twin):
    run = train(twin(MODEL), SETTINGS, data, tmp_path)
    assert run.model_config == twin(MODEL)
    accuracy, seconds, choices = evaluate(run.model, data.test)
    assert 0 <= accuracy <= 1
    assert seconds > 0
    assert choices == []


def test_evaluating_counts_the_choices_over_all_batches(whole, data, monkeypatch):
    monkeypatch.setattr(fit, "EVALUATION_BATCH", 24)  # 64 test images: the last batch is smaller
    accuracy, _, (choices,) = evaluate(whole.model, data.test)
    assert choices.sum() == MODEL.time_steps * 64 * 4 * MODEL.top_k  # 4 tokens
    with torch.no_grad():
        out = whole.model(data.test.images)
    assert choices.tolist() == out.routing[0].gates.flatten(0, -2).sum(0).tolist()
    assert accuracy == float((out.logits.argmax(1) == data.test.labels).float().mean())


def test_training_learns(tmp_path):
    """On two classes a few seconds are enough to be far above chance."""
    data = small_data(600, 100)
    keep = data.train.labels < 2
    two = replace(data, train=Split(data.train.images[keep], data.train.labels[keep]))
    run = train(MODEL, replace(SETTINGS, epochs=15, learning_rate=0.01), two, tmp_path)
    assert run.history[-1]["loss"] < 0.6 * run.history[0]["loss"]
    assert run.history[-1]["train_accuracy"] > 0.8


def test_the_model_that_is_loaded_is_the_one_that_was_trained(whole, data):
    loaded = load_run(whole.path)
    assert not loaded.model.training
    assert loaded.model_config == MODEL
    assert loaded.train_config == THREE
    images = data.test.images[:8]
    assert torch.equal(loaded.model(images).logits, whole.model(images).logits)
    assert float(loaded.model.input_limit) == pytest.approx(data.input_limit)


def test_data_that_does_not_fit_is_refused(data):
    with pytest.raises(
        ValueError, match=r"has images \(1, 8, 8\); model 'small' takes \(3, 8, 8\)"
    ):
        check_shapes(replace(MODEL, input_channels=3), data)
    with pytest.raises(ValueError, match="has 10 classes; model 'small' has num_classes=7"):
        check_shapes(replace(MODEL, num_classes=7), data)


# ---- files from strangers


def hostile(tree):
    return lambda path: write_archive(path, {}, {"tree": tree}, kind=KIND, version=FORMAT_VERSION)


@pytest.mark.parametrize(
    "write",
    [
        hostile(None),
        hostile([]),
        hostile({}),
        hostile({"dict": []}),
        hostile({"dict": 5}),
        hostile({"dict": [[1]]}),
        hostile({"tensor": "t0"}),
        hostile({"call": "os.system"}),
        hostile({"dict": [[{"list": []}, 1]]}),
        hostile({"dict": [], "list": []}),
        hostile({"dict": [["state_dict", 1], ["epoch", 1], ["spikingmoe", 1]]}),
        hostile(
            {"dict": [["state_dict", {"dict": []}], ["epoch", "x"], ["spikingmoe", {"dict": []}]]}
        ),
        lambda path: write_archive(path, {}, {}, kind=KIND, version=FORMAT_VERSION),
        lambda path: write_archive(path, {}, {"tree": {}}, kind=KIND, version=99),
        lambda path: write_archive(path, {}, {"tree": {}}, kind="spikingmoe-program", version=1),
        lambda path: torch.save({"state_dict": {}}, path),
        lambda path: path.write_text("{}"),
    ],
)
def test_files_that_are_no_checkpoint_are_refused_in_one_line(tmp_path, write):
    path = tmp_path / "epoch-0001.safetensors"
    write(path)
    with pytest.raises(FileError) as caught:
        load_run(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_model_is_refused(whole, tmp_path):
    content = read_checkpoint(whole.path)
    content["spikingmoe"]["model"]["embed_dim"] = 16
    path = tmp_path / "other.safetensors"
    ArchiveIO().save_checkpoint(content, path)
    with pytest.raises(FileError, match="holds another kind of model"):
        load_run(path)


def test_what_json_and_arrays_cannot_hold_is_not_saved(tmp_path):
    with pytest.raises(FileError, match="cannot hold a function"):
        ArchiveIO().save_checkpoint({"hook": len.__class__ and (lambda: 0)}, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


LOAD = """
import sys
from spikingmoe.train.checkpoint import load_run
load_run(sys.argv[1])  # everything that is imported late is imported now
seen, on = [], False
def hook(event, arguments):
    if on and event not in ("object.__getattr__", "object.__setattr__", "sys._getframe"):
        seen.append((event, str(arguments)[:200]))
sys.addaudithook(hook)
on = True
load_run(sys.argv[2])
on = False
bad = ("exec", "compile", "pickle", "marshal", "import", "ctypes", "socket", "subprocess", "os.")
for event, arguments in seen:
    if event.startswith(bad) and event not in ("os.listdir", "os.scandir"):
        print(event, arguments)
    if event == "open" and sys.argv[2] not in arguments:
        print(event, arguments)
print("done", len(seen))
"""


def test_loading_runs_no_code(whole):
    """An audit hook sees no exec, no unpickling, no import, and no file but the checkpoint."""
    first, second = checkpoints(whole.folder)
    result = subprocess.run(
        [sys.executable, "-c", LOAD, str(first), str(second)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    (line,) = result.stdout.splitlines()
    assert line.startswith("done")
    assert line != "done 0", "the hook must have seen the file being opened"
