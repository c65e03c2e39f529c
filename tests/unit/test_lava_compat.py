"""Importing Lava on Python 3.11+, and what the Lava worker refuses before it runs anything."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from hardware.errors import BackendError
from hardware.jobs import folder
from hardware.lava import compat, supervisor, system

ROOT = Path(__file__).parents[2]


def declare(module: str) -> type:
    """A dataclass whose field has a dataclass instance as default, declared in `module`."""
    inner = dataclasses.dataclass(type("Inner", (), {"__module__": module, "__annotations__": {}}))
    body = {"__module__": module, "__annotations__": {"field": inner}, "field": inner()}
    return dataclasses.dataclass(type("Outer", (), body))


def test_dataclass_defaults_of_lava_are_hashable_only_inside() -> None:
    pytest.importorskip("lava.magma", reason="lava-nc is not installed", exc_type=ImportError)
    original = dataclasses.dataclass
    with compat.lava_imports():
        assert declare("lava.magma.example")().field is not None
        with pytest.raises(ValueError, match="mutable default"):
            declare("lavatory")  # only modules of the package lava
    assert dataclasses.dataclass is original
    with pytest.raises(ValueError, match="mutable default"):
        declare("lava.magma.example")


def test_dataclass_is_restored_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "require_lava", lambda: None)
    original = dataclasses.dataclass
    with pytest.raises(KeyError), compat.lava_imports():
        raise KeyError("inside")
    assert dataclasses.dataclass is original


def test_a_missing_lava_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_found(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib.util, "find_spec", not_found)
    command = "pip install --no-deps --ignore-requires-python lava-nc"
    with pytest.raises(BackendError, match=command), compat.lava_imports():
        pass


def run_python(code: str, *arguments: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, env=environment, timeout=60
    ).stdout


def test_the_callers_side_imports_neither_lava_nor_torch() -> None:
    code = """
import sys, hardware.simulate, hardware.lava.run, hardware.lava.worker
print([name for name in ("torch", "lava") if name in sys.modules])
"""
    assert run_python(code).strip() == "[]"


@pytest.mark.lava
def test_the_workers_side_imports_no_torch() -> None:
    code = "import sys, hardware.lava.network, hardware.lava.execute; print('torch' in sys.modules)"
    assert run_python(code).strip() == "False"


@pytest.mark.lava
def test_the_worker_refuses_to_run_beside_torch(tmp_path: Path) -> None:
    job = folder.JobFolder(tmp_path)
    job.write("job.json", {"parent": os.getpid(), "tracks": {}})
    code = """
import sys, types
torch = sys.modules["torch"] = types.ModuleType("torch")
torch.Tensor = type("Tensor", (), {})  # SciPy looks for it
from hardware.lava.worker import main
main()
"""
    run_python(code, str(tmp_path))
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["phase"] == "failed"
    assert "the Lava worker has imported torch" in status["error"]


def test_descriptor_limit_is_raised_or_refused() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        system.raise_descriptor_limit(300, 20)
        ample = system.AMPLE_DESCRIPTORS
        raised = ample if hard == resource.RLIM_INFINITY else min(hard, ample)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (raised, hard)
        if hard != resource.RLIM_INFINITY:
            message = rf"99 Lava processes need about {hard + 1} open files.*`ulimit -n {hard + 1}`"
            with pytest.raises(BackendError, match=message):
                system.raise_descriptor_limit(hard + 1, 99)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_too_little_shared_memory_is_refused() -> None:
    with pytest.raises(
        BackendError, match=r"needs about 1000000000000 MB of shared memory; /dev/shm has"
    ):
        system.require_shared_memory(10**18 - 1)


def test_stale_job_folders_are_removed_and_live_ones_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder.tempfile, "gettempdir", lambda: str(tmp_path))
    stale = tmp_path / f"{folder.PREFIX}dead"
    stale.mkdir()
    (stale / "lock").touch()
    with folder.job_folder() as first:
        assert not stale.exists()
        with folder.job_folder() as second:
            assert first.path.exists()
            assert second.path.exists()
        assert not second.path.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_is_gone_without_a_trace_is_noticed(tmp_path: Path) -> None:
    worker = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        watch = supervisor._Watch(folder.JobFolder(tmp_path), worker, supervisor.Limits(), None)
        status = {"phase": "running", "actors": {"999999999": "n3"}}
        assert watch._problem(status, 0.0) == "Lava process 'n3' died, and somebody collected it"
    finally:
        worker.kill()
        worker.wait()
