"""The command line: the whole chain on a tiny run, and one clear line for everything wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from hardware.energy.operations import BASIC
from hardware.files import read_archive, write_archive
from hardware.ir.serialize import FORMAT_VERSION, KIND
from spikingmoe.cli.main import main
from spikingmoe.cli.options import COMMANDS
from spikingmoe.config import PRESETS
from spikingmoe.train.checkpoint import load_run

TINY = [
    "--stem-channels=[4]",
    "--stem-strides=[2,2]",
    "--embed-dim=8",
    "--num-heads=2",
    "--expert-width=8",
    "--num-experts=3",
    "--prompt-width=4",
    "--time-steps=2",
    "--depth=1",
]
ONE_CORE = min(os.sched_getaffinity(0))
DEEP_FILE = "/dev/null/below-a-file"  # a folder that not even root can make


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two epochs on all digits."""
    out = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", *TINY, "--epochs=2", "--batch-size=256", f"--out={out}"]) == 0
    return out


@pytest.fixture(scope="module")
def program(run):
    path = run / "tiny.program"
    assert main(["lower", str(run), "-o", str(path)]) == 0
    return path


def metrics(folder):
    return json.loads((Path(folder) / "metrics.json").read_text())


def refused(argv, capfd, *parts):
    """Exit code 2, nothing but one line on stderr, and that line says `parts`."""
    assert main([str(a) for a in argv]) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1, err
    assert err.startswith("spikingmoe: ")
    assert "Traceback" not in err
    for part in parts:
        assert part in err
    return err


# ---- the chain


def test_map_lays_a_program_out(program, tmp_path, capfd):
    assert main(["map", str(program), f"--out={tmp_path}", "--samples=2"]) == 0
    values = metrics(tmp_path)
    assert values["fits"]
    assert values["traffic"]["measured"]
    assert values["cores"] == len(values["core_list"]) >= 1
    assert (tmp_path / "chip.png").read_bytes().startswith(b"\x89PNG")
    assert "fits one chip" in capfd.readouterr().out
    assert main(["map", str(program), f"--out={tmp_path}", "--rate=0.2", "--pack=false"]) == 0
    assert not metrics(tmp_path)["traffic"]["measured"]
    assert metrics(tmp_path)["cores"] > values["cores"]
    assert main(["map", str(program), f"--out={tmp_path}", "--rate=0.2", "--chip=loihi1"]) == 0
    assert "problem: loihi1 has binary spikes only" in capfd.readouterr().out


def test_map_refuses_bad_input(program, run, capfd):
    refused(["map", program, "--chip=loihi3"], capfd, "chip 'loihi3' is unknown", "loihi2")
    refused(["map", program, "--rate=2"], capfd, "rate=2.0; use a number")
    refused(["map", program, "--samples=0"], capfd, "samples=0; use at least 1")
    refused(["map", "nowhere.program"], capfd, "nowhere.program")
    refused(["map", run], capfd, str(run))


def test_nir_there_and_back(program, tmp_path, capfd):
    there, back = tmp_path / "x.nir", tmp_path / "back.program"
    assert main(["nir", str(program), "-o", str(there)]) == 0
    assert main(["nir", str(there), "-o", str(back)]) == 0
    assert "NIR nodes" in capfd.readouterr().out
    folders = []
    for file in (program, back):
        folders.append(tmp_path / file.stem)
        argv = ["simulate", str(file), "--backend=reference", "--samples=20", "--data=digits"]
        assert main([*argv, f"--out={folders[-1]}"]) == 0
    one, two = (metrics(folder) for folder in folders)
    assert one["predictions"] == two["predictions"]
    assert one["firing_rates"] == two["firing_rates"]


def test_nir_refuses_bad_input(program, tmp_path, capfd):
    target = tmp_path / "x.nir"
    refused(["nir", program, "-o", tmp_path / "y.program"], capfd, "exactly one", ".nir")
    refused(
        ["nir", "nowhere.nir", "-o", tmp_path / "y.program"], capfd, "nowhere.nir: no such file"
    )
    refused(["nir", "nowhere.program", "-o", target], capfd, "nowhere.program")
    refused(["nir", program, "-o", tmp_path], capfd, "is a folder")
    (tmp_path / "bad.nir").write_bytes(b"no")
    refused(["nir", tmp_path / "bad.nir", "-o", tmp_path / "y.program"], capfd, "no HDF5 file")
    assert not target.exists()
    assert not (tmp_path / "y.program").exists()


def test_train_writes_metrics(run):
    values = metrics(run)
    assert values["command"] == "train"
    assert values["epoch"] == 2
    assert len(values["history"]) == 2
    assert values["config"]["model"]["embed_dim"] == 8
    assert values["config"]["train"]["batch_size"] == 256
    assert values["accuracy"]["test"]["samples"] == 359
    assert 0 <= values["accuracy"]["test"]["torch"] <= 1
    assert set(values["versions"]) >= {"python", "torch", "numpy", "spikingmoe"}


def test_evaluate_agrees_with_train(run, capfd):
    assert main(["evaluate", str(run)]) == 0
    values = metrics(run / "evaluate")
    assert values["accuracy"]["test"] == metrics(run)["accuracy"]["test"]
    (load,) = values["experts"]["load"].values()
    assert len(load) == 3
    assert sum(load) == pytest.approx(1, abs=1e-5)
    assert "test accuracy (n = 359)" in capfd.readouterr().out


def test_lower_and_simulate(run, program, tmp_path, capfd):
    for form, extra in (
        ("float", []),
        ("fixed", ["--fixed"]),
        ("unrolled", ["--residual=unrolled"]),
        ("pooled", ["--head=pooled"]),
        ("pooled-fixed", ["--head=pooled", "--fixed"]),
    ):
        path = tmp_path / f"{form}.program"
        assert main(["lower", str(run), "-o", str(path), *extra]) == 0
        out = tmp_path / form
        argv = ["simulate", str(path), "--backend=reference", "--samples=40", f"--out={out}"]
        assert main(argv) == 0
        values = metrics(out)
        assert values["samples"] == 40
        assert len(values["predictions"]) == 40
        assert values["meta"]["backend"] == "reference"
        assert values["meta"]["arithmetic"] == ("fixed" if "fixed" in form else "float")
        assert 0 < values["firing_rates"]["blocks.0.moe.gate"] == pytest.approx(1 / 3)
    predictions = {f.name: metrics(f)["predictions"] for f in tmp_path.iterdir() if f.is_dir()}
    assert predictions["float"] == predictions["unrolled"] == predictions["pooled"]
    assert predictions["fixed"] == predictions["pooled-fixed"]
    # "fixed" can also be asked of a float program, with the same result
    for path in (program, tmp_path / "pooled.program"):
        again = ["simulate", str(path), "--backend=reference", "--arithmetic=fixed", "--samples=40"]
        assert main([*again, f"--out={tmp_path / 'again'}"]) == 0
        assert metrics(tmp_path / "again")["predictions"] == predictions["fixed"]
    assert "sha-256 of the content" in capfd.readouterr().out


def test_simulate_writes_beside_the_program(program):
    assert main(["simulate", str(program), "--backend=stream", "--samples=2"]) == 0
    assert metrics(f"{program}.simulate")["meta"]["backend"] == "stream"


def test_energy(run, capfd):
    assert main(["energy", str(run), "--twins=false"]) == 0
    values = metrics(run / "energy")
    assert set(values["synops_per_sample"]) == {"moe"}
    assert values["synops_per_sample"]["moe"] > 0
    band = values["energy"]["horowitz45"]["moe"]["energy_pj_per_sample"]
    assert 0 < band["low"] <= band["value"] <= band["high"]
    assert values["energy_pj_per_sample"]["moe"] == band["value"]
    assert values["accuracy"]["test"] == metrics(run)["accuracy"]["test"]
    assert values["accuracy"]["twins"] == {}
    assert "boundary:" in capfd.readouterr().out


OWN_COSTS = """
name: own
title: Our chip
boundary: synaptic operations alone
unit: pJ
costs:
  accumulates: {value: 2, low: 1, high: 3, grade: measured, source: lab book}
  multiply_accumulates: {value: 4, grade: analytical, source: twice as much}
not_priced: {%s}
"""


def own_costs(path, without=()):
    others = [o for o in BASIC if not o.endswith("accumulates") and o not in without]
    path.write_text(OWN_COSTS % ", ".join(f"{o}: ours" for o in others))
    return path


def test_energy_under_several_tables(run, tmp_path, capfd):
    costs = f"loihi1-fitted,lemaire,yan,{own_costs(tmp_path / 'own.yaml')}"
    argv = ["energy", str(run), "--twins=false", "--images=4", f"--out={tmp_path}"]
    assert main([*argv, f"--costs={costs}"]) == 0
    values, shown = metrics(tmp_path), capfd.readouterr().out
    assert list(values["energy"]) == ["loihi1-fitted", "lemaire", "yan", "own"]
    reports = {name: models["moe"] for name, models in values["energy"].items()}
    assert (
        values["energy_pj_per_sample"]["moe"]
        == (reports["loihi1-fitted"]["energy_pj_per_sample"]["value"])
    )
    for name, report in reports.items():
        band = report["energy_pj_per_sample"]
        assert 0 < band["low"] < band["value"] < band["high"]
        assert f"estimated energy per image, {name}" in shown
        assert f"boundary: {report['boundary']}" in shown
    counts = reports["own"]["counts_per_sample"]
    by_hand = 2 * counts["accumulates"] + 4 * counts["multiply_accumulates"]
    assert reports["own"]["energy_pj_per_sample"]["value"] == pytest.approx(by_hand)
    assert reports["loihi1-fitted"]["counts_per_sample"]["core_messages"] > 0
    assert "core_messages" not in counts, "no layout was asked for"
    static = reports["loihi1-fitted"]["static"]
    assert static["steps"] == values["config"]["model"]["time_steps"]
    assert shown.count("static power, not in the energies above: at least") == 1


def test_bad_cost_files(run, tmp_path, capfd):
    bad = own_costs(tmp_path / "bad.yaml", without=("spikes_sent",))
    good = own_costs(tmp_path / "good.yaml")
    for costs, parts in {
        f"horowitz45,{bad}": [f"{bad}: costs: spikes_sent missing"],
        f"{tmp_path}/none.yaml": ["none.yaml: cannot read: No such file"],
        f"{good},{good}": ["'own' stands twice; name each table once"],
        "horowitz45,": ["has an empty name; use one of horowitz45"],
        "loihi-2": ["no table of energies per operation has been published for Loihi 2"],
    }.items():
        refused(["energy", run, "--twins=false", f"--costs={costs}"], capfd, *parts)


@pytest.mark.skipif(
    find_spec("spikingmoe.report.page") is None, reason="the report page is not there yet"
)
def test_report(run, capfd):
    assert main(["report", str(run), "--samples=8"]) == 0
    page = (run / "report" / "report.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert "</html>" in page
    values = metrics(run / "report")
    assert values["command"] == "report"
    assert values["accuracy"]["test"]["samples"] == 359
    assert values["latency_steps"]["time_steps"] == 2


def test_a_report_keeps_what_was_counted_on_other_images_apart(run, tmp_path):
    """What `verify` measured on fewer images is not shown as if it were of the whole test set."""
    folder = tmp_path / "copy"
    shutil.copytree(run, folder)
    written = metrics(folder)
    test = {"torch": 0.5, "reference_fixed": 0.5, "samples": 4}
    (folder / "energy").mkdir(exist_ok=True)
    (folder / "verify").mkdir(exist_ok=True)
    energy = written | {"accuracy": {"twins": {"dense": 0.125}}}
    (folder / "energy" / "metrics.json").write_text(json.dumps(energy))
    for samples, kept in ((4, False), (359, True)):
        verify = written | {"accuracy": {"test": test | {"samples": samples}}}
        (folder / "verify" / "metrics.json").write_text(json.dumps(verify))
        assert main(["report", str(folder), "--samples=2"]) == 0
        accuracy = metrics(folder / "report")["accuracy"]
        assert ("reference_fixed" in accuracy["test"]) is kept
        assert accuracy["test"]["torch"] == written["accuracy"]["test"]["torch"]
        assert accuracy["twins"] == {"dense": 0.125}


def test_resume_of_a_finished_run(run):
    before = {p: p.read_bytes() for p in (run / "checkpoints").iterdir()}
    argv = ["train", *TINY, "--epochs=2", "--batch-size=256", f"--out={run}", "--resume"]
    assert main(argv) == 0
    assert {p: p.read_bytes() for p in (run / "checkpoints").iterdir()} == before


# ---- bad input


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["trian"], ["unknown command 'trian'", "did you mean 'train'?"]),
        (["frobnicate"], ["unknown command 'frobnicate' (there are: bundle, demo,"]),
        (["train", "--preset", "digit"], ["unknown preset 'digit'", "did you mean 'digits'?"]),
        (["train", "--data", "digts"], ["unknown data set 'digts'", "did you mean 'digits'?"]),
        (["train", "--top-k", "9"], ["top_k=9 exceeds num_experts=4; use 1 to 4"]),
        (["train", "--epocs", "2"], ["unknown option --epocs; did you mean --epochs?"]),
        (["train", "--zzzzzz=2"], ["unknown option --zzzzzz (see spikingmoe train --help)"]),
        (["train", "--epochs", "many"], ["epochs", "many"]),
        (["train", "--epochs", "2.5"], ["epochs", "2.5"]),
        (["train", "--epochs"], ["--epochs"]),
        (
            ["train", "--hold", "windw"],
            ["train: hold=windw; use one of step, window; did you mean window?"],
        ),
        (["train", "--num-exp", "3"], ["unknown option --num-exp; did you mean --num-experts?"]),
        (["train", "--early-depths", "1"], ["early_depths=1; needs whole numbers in brackets"]),
        (["train", "--stem-strides=[1,x]"], ["stem_strides=x; needs whole numbers in brackets"]),
        (["train", "--top-k", "1.5"], ["train: top_k=1.5; needs a whole number"]),
        (["train", "--flip", "maybe"], ["train: flip=maybe; needs true or false"]),
        (["train", "--hold-step=-1"], ["hold_step=-1 must not be negative"]),
        (["train", "--budget-weight=1"], ["needs a routing", "threshold or dynamic", "'top_k'"]),
        (["train", "--learning-rate=.nan"], ["learning_rate=nan must be a finite number"]),
        (["train", "--seed=-1"], ["seed=-1 must not be negative"]),
        (["train", "--config", "no-such.yaml"], ["no-such.yaml"]),
        (["train", "--input-channels=3"], ["data 'digits' has images (1, 8, 8)"]),
        (["evaluate"], ["required: run"]),
        (["evaluate", "no-such-run"], ["no-such-run: no such run"]),
        (["lower", "no-such-run", "-o", "x.program"], ["no-such-run: no such run"]),
        (["lower", "somewhere"], ["required: output"]),
        (["verify", "no-such-run"], ["no-such-run"]),
        (["energy", "no-such-run"], ["no-such-run"]),
        (["report", "no-such-run"], ["no-such-run"]),
        (["simulate", "no-such.program"], ["no-such.program"]),
        (["demo", "--samples", "0"], ["samples=0", "use 1 to 359"]),
        (["demo", "--time-limit", "0"], ["time_limit=0.0 must be a positive number of seconds"]),
    ],
)
def test_bad_input(argv, parts, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(argv, capfd, *parts)
    assert list(tmp_path.iterdir()) == [], "nothing is written"


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["evaluate", "{run}", "--data", "mnist"], ["unknown data set 'mnist'"]),
        (["energy", "{run}", "--costs", "horowitz"], ["horowitz", "horowitz45"]),
        (["energy", "{run}", "--twins", "perhaps"], ["twins=perhaps; needs true or false"]),
        (["energy", "{run}", "--images", "0"], ["images=0; there are 359 test images"]),
        (["verify", "{run}", "--images", "360"], ["images=360", "use 1 to 359"]),
        (["verify", "{run}", "--images=4", "--samples=5"], ["samples=5", "use 1 to 4"]),
        (["verify", "{run}", "--time-limit=-1"], ["time_limit=-1.0 must be a positive number"]),
        (["lower", "{run}", "-o", "{tmp}"], ["is a folder; name a file"]),
        (["lower", "{run}", "-o", f"{DEEP_FILE}/x.program"], [DEEP_FILE]),
        (["lower", "{run}", "-o", "x", "--residual", "graded"], ["graded"]),
        (["lower", "{run}", "-o", "x", "--head", "mean"], ["invalid choice: 'mean'"]),
        (
            ["lower", "{run}", "-o", "x", "--fixed", "--head=pooled", "--scores=rows"],
            ["head=pooled sends graded sums", "use one of them"],
        ),
        (["evaluate", "{run}", "--out", DEEP_FILE], [DEEP_FILE]),
        (["report", "{run}", "--samples", "360"], ["samples=360", "use 1 to 359"]),
        (["simulate", "{program}", "--backend", "lav"], ["unknown backend 'lav'", "'lava'?"]),
        (["simulate", "{program}", "--samples", "9999"], ["samples=9999", "use 1 to 359"]),
        (["simulate", "{program}", "--samples", "-3"], ["samples=-3"]),
        (["simulate", "{program}", "--samples", "x"], ["samples"]),
        (["simulate", "{program}", "--backend=reference", "--arithmetic", "bf16"], ["bf16"]),
        (
            ["simulate", "{program}", "--backend=reference", "--samples=2", "--out", DEEP_FILE],
            [DEEP_FILE],
        ),
        (["simulate", "{checkpoint}", "--backend=reference"], ["is a 'spikingmoe-checkpoint'"]),
        (["simulate", "{run}", "--backend=reference"], ["{run}"]),
        (["evaluate", "{program}"], ["not a 'spikingmoe-checkpoint'"]),
        (["lower", "{program}", "-o", "x"], ["not a 'spikingmoe-checkpoint'"]),
        (["evaluate", "{tmp}"], ["holds no checkpoint"]),
        (["train", "--out", "{run}"], ["holds a run already; use --resume, or another --out"]),
        (["train", "--out", "{run}", "--resume"], ["was trained with other settings"]),
    ],
)
def test_bad_input_beside_a_run(argv, parts, run, program, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint = run / "checkpoints" / "epoch-0002.safetensors"
    names = {"run": run, "program": program, "checkpoint": checkpoint, "tmp": tmp_path}
    capfd.readouterr()
    refused([a.format(**names) for a in argv], capfd, *(p.format(**names) for p in parts))
    assert list(tmp_path.iterdir()) == [], "nothing is written"


@pytest.mark.parametrize("command", ["energy", "verify", "report"])
def test_what_cannot_be_lowered_is_refused_before_twins_are_trained(command, refusing, capfd):
    before = sorted(refusing.rglob("*"))
    capfd.readouterr()
    refused([command, refusing], capfd, "cannot lower 'blocks.0.attention'", "'qk'")
    assert sorted(refusing.rglob("*")) == before, "nothing is written"


@pytest.fixture(scope="module")
def refusing(tmp_path_factory):
    """A run whose attention cannot be lowered."""
    out = tmp_path_factory.mktemp("ssa") / "run"
    short = ["--epochs=1", "--warmup-epochs=0", "--train-samples=64", f"--out={out}"]
    assert main(["train", *TINY, *short, "--attention=ssa"]) == 0
    return out


def test_energy_of_a_relu_network_only_where_there_is_a_price(tmp_path, capfd):
    out = tmp_path / "relu"
    short = ["--epochs=1", "--warmup-epochs=0", "--train-samples=64", f"--out={out}"]
    relu = ["--neuron=relu", "--time-steps=1", "--routing=dense", "--num-experts=1"]
    assert main(["train", *TINY, *short, *relu]) == 0
    capfd.readouterr()
    refused(["energy", out, "--costs=loihi1"], capfd, "is a ReLU network", "horowitz45")
    assert not (out / "energy").exists()
    assert main(["energy", str(out), "--images=4"]) == 0
    assert "relu: multiply-accumulates" in capfd.readouterr().out


def test_fixed_programs_have_no_float_arithmetic(run, tmp_path, capfd):
    path = tmp_path / "fixed.program"
    assert main(["lower", str(run), "-o", str(path), "--fixed"]) == 0
    capfd.readouterr()
    argv = ["simulate", path, "--backend=reference", "--arithmetic=float"]
    refused(argv, capfd, "arithmetic='float' asked of a fixed-point graph")


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.999])
def test_files_that_were_cut_short(run, program, tmp_path, capfd, keep):
    checkpoint = run / "checkpoints" / "epoch-0002.safetensors"
    for path, argv in ((program, ["simulate"]), (checkpoint, ["evaluate"])):
        content = path.read_bytes()
        short = tmp_path / path.name
        short.write_bytes(content[: int(keep * len(content))])
        capfd.readouterr()
        assert str(short) in refused([*argv, short], capfd)


def test_a_program_of_another_version(program, tmp_path, capfd):
    arrays, meta = read_archive(program, kind=KIND, version=FORMAT_VERSION)
    newer = tmp_path / "newer.program"
    write_archive(newer, arrays, meta, kind=KIND, version=FORMAT_VERSION + 1)
    capfd.readouterr()
    refused(
        ["simulate", newer],
        capfd,
        f"has version {FORMAT_VERSION + 1}",
        f"reads version {FORMAT_VERSION}",
    )


class NoLava:
    """A finder in front of all others that finds no Lava."""

    @staticmethod
    def find_spec(name, _path=None, _target=None):
        if name == "lava" or name.startswith("lava."):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)


def test_without_lava_the_message_has_the_command(program, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [NoLava, *sys.meta_path])
    for name in [n for n in sys.modules if n == "lava" or n.startswith("lava.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.chdir(tmp_path)
    capfd.readouterr()
    refused(
        ["simulate", program, "--samples=1"],
        capfd,
        "lava-nc, which is not installed",
        "pip install --no-deps --ignore-requires-python lava-nc",
    )


def test_an_output_folder_that_cannot_be_made(capfd):
    argv = ["train", *TINY, "--epochs=1", "--batch-size=1000", "--out", DEEP_FILE]
    capfd.readouterr()
    refused(argv, capfd, DEEP_FILE)


# ---- as a program


def spawn(*argv, code=None, **options):
    command = ["-c", code] if code else ["-m", "spikingmoe.cli.main"]
    return subprocess.Popen(
        [sys.executable, *command, *map(str, argv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        **options,
    )


HELP = """
import sys
from spikingmoe.cli.main import main
for argv in [["--help"], ["--version"], *([c, "--help"] for c in sys.argv[1:])]:
    try:
        main(argv)
        print("no exit", argv)
    except SystemExit as stop:
        print("EXIT", argv, stop.code)
print("HEAVY", [m for m in ("torch", "lightning", "snntorch", "lava", "sklearn") if m in sys.modules])
"""


def test_help_is_quick():
    """Help of every command, without importing torch."""
    out, err = spawn(*COMMANDS, code=HELP).communicate(timeout=60)
    assert err == ""
    assert "no exit" not in out
    exits = [line for line in out.splitlines() if line.startswith("EXIT")]
    assert len(exits) == len(COMMANDS) + 2
    assert all(line.endswith(" 0") for line in exits)
    assert "HEAVY []" in out
    for command in COMMANDS:
        assert f"usage: spikingmoe {command}" in out
    for option in ("--top-k", "--hold", "--epochs", "--resume", "--arithmetic", "--costs"):
        assert option in out


def test_without_arguments_it_says_what_there_is():
    child = spawn()
    out, err = child.communicate(timeout=60)
    assert child.returncode == 2
    assert err == ""
    assert all(command in out for command in COMMANDS)


def test_bad_input_as_a_program():
    child = spawn("train", "--preset", "digit")
    out, err = child.communicate(timeout=60)
    assert child.returncode == 2
    assert out == ""
    there = ", ".join(sorted(PRESETS))
    assert err == (
        f"spikingmoe: unknown preset 'digit'; did you mean 'digits'? (there are: {there})\n"
    )


@pytest.mark.slow
def test_signals_leave_whole_files_and_a_run_that_goes_on(tmp_path):
    """SIGINT and SIGTERM in the middle of training: 130 and 143, one line, no half-written file."""
    cases = {signal.SIGINT: 130, signal.SIGTERM: 143}
    common = ["train", *TINY, "--epochs=300", "--batch-size=256"]

    def prepare():
        signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
        os.sched_setaffinity(0, [ONE_CORE])

    children = {
        number: spawn(
            *common,
            f"--out={tmp_path / number.name}",
            preexec_fn=prepare,
        )
        for number in cases
    }
    try:
        for number, child in children.items():
            deadline = time.monotonic() + 120
            while not list((tmp_path / number.name).glob("checkpoints/*.safetensors")):
                assert child.poll() is None, child.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.01)
            time.sleep(0.2)
            child.send_signal(number)
            started = time.monotonic()
            _, err = child.communicate(timeout=30)
            assert time.monotonic() - started < 10
            assert child.returncode == cases[number], err
            assert err.count("\n") == 1, err
            assert "; --resume goes on" in err
    finally:
        for child in children.values():
            child.kill()
            child.wait()
    for number in cases:
        out = tmp_path / number.name
        assert [p.name for p in out.rglob("*.tmp")] == []
        assert load_run(out).epoch > 0
        assert 1 <= len(list((out / "checkpoints").iterdir())) <= 3
        assert main(["evaluate", str(out)]) == 0


def test_simulate_on_a_chip_needs_intels_package(program, capfd):
    argv = ["simulate", program, "--backend=loihi", "--samples=1"]
    refused(argv, capfd, "--arithmetic fixed")
    refused([*argv, "--arithmetic=fixed"], capfd, "lava-loihi", "Neuromorphic Research Community")
