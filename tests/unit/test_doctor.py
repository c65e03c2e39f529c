"""`spikingmoe doctor`: right about what is there, and never a traceback whatever is broken."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from spikingmoe.cli.doctor import render, verdict
from spikingmoe.doctor import Check, examination, examine
from spikingmoe.doctor.check import guarded
from spikingmoe.doctor.child import Answer
from spikingmoe.doctor.device import cpu_flags, device_checks
from spikingmoe.doctor.kernels import kernel_checks
from spikingmoe.doctor.limits import (
    CONNECTIONS,
    MESSAGE_BYTES,
    PROCESSES,
    descriptor_check,
    platform_check,
    shared_memory_check,
)
from spikingmoe.doctor.packages import package_checks, python_check, read_imports
from spikingmoe.doctor.requirements import REQUIREMENTS, is_within
from spikingmoe.doctor.storage import checkpoint_checks, data_checks, folder_check

ROOT = Path(__file__).parents[2]
RUN = "import sys; from spikingmoe.cli.main import main; sys.exit(main())"
ALL_THERE = {r.name: (r.versions.split(",")[0].lstrip("=<>") or "1.0") for r in REQUIREMENTS}


def doctor(*words, folder=None, **environ):
    """Run the command in an environment of its own; `folder` comes first on the import path."""
    path = os.pathsep.join(str(p) for p in (folder, ROOT) if p)
    return subprocess.run(
        [sys.executable, "-c", RUN, "doctor", *words],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "400", **environ},
    )


def by_name(checks):
    return {check.name: check for check in checks}


def test_it_knows_every_package_that_pyproject_names():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = set(project["dependencies"]).union(*project["optional-dependencies"].values())
    named = {text.split(";")[0].strip() for text in named}
    known = {f"{r.name}{r.versions}" for r in REQUIREMENTS}
    apart = {
        "lava-nc",
        "norse",
        "spikingjelly",
        "neurobench",
    }  # installed with --no-deps, which pyproject cannot say
    assert known - named == apart
    assert named <= known


def test_a_whole_machine_can_run_the_demo(tmp_path):
    """The one test of the real thing: this environment runs all of these tests."""
    done = doctor("--json", str(tmp_path / "a" / "doctor.json"), SPIKINGMOE_DATA=str(tmp_path))
    assert done.stderr == ""
    assert done.returncode == 0, done.stdout
    assert "spikingmoe demo can run" in done.stdout
    written = json.loads((tmp_path / "a" / "doctor.json").read_text())
    assert written["demo_can_run"]
    found = by_name(Check(**values) for values in written["checks"])
    for name in ("torch", "snntorch", "lava-nc [lava]", "open files", "cifar-tiny", "python"):
        assert found[name].state == "ok"
    assert found["data"].found == f"digits in {tmp_path}"
    assert "spikingmoe download cifar10" in found["data"].fix


def test_a_package_whose_import_raises_and_one_that_ends_the_process(tmp_path):
    (tmp_path / "snntorch").mkdir()
    (tmp_path / "snntorch" / "__init__.py").write_text("raise RuntimeError('half\\nan install')")
    (tmp_path / "aedat.py").write_text("import os; print('noise'); os.abort()")
    done = doctor(folder=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert "its import fails: RuntimeError: half an install" in done.stdout
    assert "mend: pip install 'snntorch>=1.0' --force-reinstall" in done.stdout
    assert "ended by signal 6" in done.stdout
    assert "demo CANNOT run: snntorch" in done.stdout


def test_without_the_packages_of_the_command_line_itself(tmp_path):
    (tmp_path / "jsonargparse.py").write_text("raise ImportError('no jsonargparse')")
    gone = str(tmp_path / "g++")
    done = doctor(folder=tmp_path, CXX=gone, SPIKINGMOE_CACHE="/proc/none")
    assert done.returncode == 1
    assert (
        f"missing  compiler                  RuntimeError: no C++ compiler: {gone}" in done.stdout
    )
    assert "/proc/none cannot be written" in done.stdout
    assert "the command line itself cannot start: ImportError: no jsonargparse" in done.stderr
    assert "demo CANNOT run: jsonargparse" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    code = RUN.replace("main())", "main(['presets']))")
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
    )  # fmt: skip
    assert other.returncode == 2
    assert other.stderr == (
        "spikingmoe: cannot start: no jsonargparse; `spikingmoe doctor` says what is missing\n"
    )


def test_bad_options_are_one_line():
    done = doctor("--thorogh")
    assert done.returncode == 2
    assert done.stderr.startswith("spikingmoe: doctor: unknown option --thorogh; did you mean")


@pytest.mark.parametrize("lacking", ["torch", "lava-nc", "norse"])
def test_a_missing_package_has_a_cost_and_a_command(lacking):
    checks = package_checks({}, lambda name: None if name == lacking else ALL_THERE[name])
    (missing,) = [check for check in checks if check.state != "ok"]
    assert (missing.state, missing.stops_the_demo) == ("missing", lacking != "norse")
    assert missing.cost
    assert (
        missing.fix
        == {
            "torch": "pip install 'torch>=2.10'",
            "lava-nc": "pip install --no-deps --ignore-requires-python lava-nc",
            "norse": "pip install nir nirtorch && pip install --no-deps norse",
        }[lacking]
    )


def test_a_version_out_of_range_is_a_warning():
    versions = {**ALL_THERE, "numpy": "3.0.1"}
    found = by_name(package_checks({}, versions.get))["numpy"]
    assert (found.state, found.found) == ("warning", "3.0.1 (needs >=1.26,<3)")
    assert is_within("2.13.0+cpu", ">=2.10")
    assert not is_within("2.9.1", ">=2.10")
    assert is_within("2.8.7", "==2.8.7")
    with pytest.raises(ValueError, match=r"version bound '~=1'; use >=, < or =="):
        is_within("1", "~=1")


@pytest.mark.parametrize(
    ("version", "state"), [((3, 10), "missing"), ((3, 12), "ok"), ((3, 13), "warning")]
)
def test_python(version, state):
    assert python_check(version).state == state


def test_an_import_that_ends_the_process_is_told_by_its_last_word():
    answer = Answer({"begin a": True, "import a": None, "begin b": True}, "ended by signal 4: -")
    assert read_imports(answer, ["a", "b", "c"]) == {"a": None, "b": "ended by signal 4: -"}


def test_low_limits():
    needed = 10 * (PROCESSES + 1) + 3 * CONNECTIONS + 64
    assert (needed, descriptor_check(needed).state) == (2305, "ok")
    assert descriptor_check(None).state == "ok"
    low = descriptor_check(1024)
    assert low.stops_the_demo
    assert "1,024; the demo needs 2,305" in low.found
    assert "ulimit -Hn 2305" in low.fix
    tiny = shared_memory_check(1_000_000)
    assert tiny.stops_the_demo
    assert "1 MB free in /dev/shm; the demo needs 8 MB" in tiny.found
    assert "--shm-size" in tiny.fix
    assert platform_check("darwin", False).stops_the_demo
    assert platform_check("linux", False).found == "linux without /proc"


@pytest.mark.parametrize("arithmetic", ["float", "fixed"])
def test_the_demo_needs_what_the_limits_say(arithmetic, tmp_path):
    """The preset digits as Lava's stock network, built in an interpreter without torch."""
    from hardware.ir.nodes import LIF, Input, size
    from hardware.lowering import lower
    from hardware.passes.pipeline import legalise_for_stock_lava, prepare
    from spikingmoe import create_model

    graph = legalise_for_stock_lava(prepare(lower(create_model("digits").eval()), arithmetic))
    graph.save(str(tmp_path / "program"))
    shape = graph.data_input.shape
    tracks = {
        n: [size(p), isinstance(p, LIF)]
        for n, p in graph.populations.items()
        if not isinstance(p, Input) and "~" not in n
    }
    code = f"""
import numpy as np
from hardware.ir.graph import SpikeGraph
from hardware.ir.stream import stream_steps
from hardware.jobs.folder import JobFolder
from hardware.lava.plan import plan_network
from hardware.lava.settings import Settings
from hardware.lava.tracks import Track
graph, tracks = SpikeGraph.load("program"), {{}}
for i, (name, (neurons, binary)) in enumerate({tracks!r}.items()):
    tracks[name] = Track(neurons=neurons, binary=binary, path=f"{{i}}.npy")
    tracks[name].create(stream_steps(graph, 1))
inputs = np.zeros((1, 1, *{shape!r}))
built = plan_network(JobFolder("."), graph, inputs, tracks, Settings(network="stock")).size
print(built.processes, built.connections, built.message_bytes)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [int(word) for word in done.stdout.split()] == [PROCESSES, CONNECTIONS, MESSAGE_BYTES]


def test_kernels():
    def states(facts):
        return [(c.name, c.state) for c in kernel_checks(facts)]

    lacking = {"error": "RuntimeError: no C++ compiler: g++, clang++ or c++ is not on the PATH"}
    assert states(lacking) == [("compiler", "missing")]
    (said,) = kernel_checks(lacking)
    assert "several times slower" in said.cost
    assert "apt-get install g++" in said.fix
    assert states({"off": True}) == [("kernels", "warning")]
    assert states({}) == [("compiler", "warning")]
    base = {"compiler": "/usr/bin/g++", "cached": None, "folder": "/there"}
    assert states(base) == [("compiler", "ok"), ("kernels", "ok")]
    assert "not built yet" in list(kernel_checks(base))[1].found
    failed = {**base, "loaded": False, "warnings": ["no fused CPU kernels (g++ failed)"]}
    assert states(failed)[1] == ("kernels", "missing")
    serial = {**base, "loaded": True, "warnings": ["g++ has no OpenMP"]}
    assert states(serial)[1] == ("kernels", "warning")


def test_device_and_precision():
    flags = cpu_flags("processor : 0\nflags\t: fpu avx2 avx512_bf16\n")
    assert flags == {"fpu", "avx2", "avx512_bf16"}
    cpu = {"cuda": False, "cuda_build": None, "devices": [], "cuda_bf16": False}
    found = by_name(device_checks(flags, cpu))
    assert found["GPU"].state == "warning"
    assert "--precision bf16 is worth a try" in found["precision"].found
    assert "fp32" in by_name(device_checks({"avx2"}, cpu))["precision"].found
    gpu = {"cuda": True, "cuda_build": "12.8", "devices": ["H100"], "cuda_bf16": True}
    assert by_name(device_checks(set(), gpu))["GPU"].found == "H100 (CUDA 12.8)"
    broken = by_name(device_checks(set(), {"error": "no torch"}))
    assert broken["GPU"].found == "not looked at: no torch"
    assert broken["processor"].state == "warning"


def test_folders_checkpoints_and_data(tmp_path):
    assert folder_check("cache", tmp_path / "a" / "b", free=5_000_000_000).state == "ok"
    assert folder_check("cache", tmp_path, free=1).state == "warning"
    (tmp_path / "file").write_text("")
    assert folder_check("cache", tmp_path / "file").state == "missing"
    assert by_name(checkpoint_checks(tmp_path))["bundled checkpoints"].state == "missing"
    (tmp_path / "bad.safetensors").write_bytes(b"no checkpoint")
    bad = by_name(checkpoint_checks(tmp_path))["bad"]
    assert bad.state == "missing"
    assert "bad.safetensors" in bad.found
    assert next(data_checks({"error": "no torch"})).state == "warning"
    there = {"cifar10": True, "cifar100": False}
    (data,) = data_checks({"folder": "/d", "there": there})
    assert (data.found, data.fix) == ("digits, cifar10 in /d", "more: spikingmoe download cifar100")


def test_a_look_that_fails_is_a_warning(monkeypatch):
    def broken():
        raise RuntimeError("no\nluck")

    (check,) = guarded("files", "folders", broken)
    assert (check.state, check.found) == (
        "warning",
        "could not be looked at (RuntimeError: no luck)",
    )
    monkeypatch.setattr(examination, "start", lambda *words: None)
    monkeypatch.setattr(examination, "finish", lambda child, limit: Answer({}, "no answer"))
    for module in ("limits.limit_checks", "storage.storage_checks", "packages.package_checks"):
        monkeypatch.setattr(f"spikingmoe.doctor.{module}", lambda *_: broken())
    found = examine()
    assert sum("no luck" in check.found for check in found) == 3
    assert verdict(found).startswith("spikingmoe demo can run; ")


def test_the_table_has_state_cost_and_cure():
    checks = [
        Check(topic="t", name="one", state="ok", found="1.0"),
        Check(topic="t", name="two", state="missing", found="gone", cost="all", fix="get it",
              needed=True),
    ]  # fmt: skip
    assert render(checks, 60).splitlines() == [
        "t",
        "ok       one  1.0",
        "missing  two  gone",
        "              costs: all",
        "              mend: get it",
    ]
    assert verdict(checks) == "spikingmoe demo CANNOT run: two"
