"""The Triton twin of the CPU kernels, without a GPU: interpreted, and compiled but not run.

Each in a process of its own: TRITON_INTERPRET is read when triton is imported, which torch may have
done here already.
"""

import importlib.util
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from kernel_cases import needs_kernels

from spikingmoe.kernels import backends, build

TESTS = Path(__file__).parents[1]
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="triton is not installed (pip install spikingmoe[triton])",
)


def run(tmp_path, *command, **variables):
    """Standard output of python with these arguments, in the folder of the tests."""
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    env = {**os.environ, "PYTHONPATH": paths, "TRITON_CACHE_DIR": str(tmp_path), **variables}
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=TESTS, env=env, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    return done.stdout


@pytest.mark.slow
@needs_kernels
@needs_triton
def test_interpreted_they_do_as_the_cpu_kernels(tmp_path):
    """Same spikes, gradients to float32 rounding: tests/triton_cases.py."""
    command = ("-m", "pytest", "-p", "no:cacheprovider", "triton_cases.py")
    out = run(tmp_path, *command, TRITON_INTERPRET="1")
    assert int(re.search(r"(\d+) passed", out)[1]) > 40
    assert "skipped" not in out


@pytest.mark.slow
@needs_triton
def test_they_compile_for_gpus_without_contracted_products(tmp_path):
    """A fused multiply-add rounds once where torch rounds twice: spikes would differ."""
    lines = [line.split() for line in run(tmp_path, "triton_compile.py").splitlines()]
    *kernels, with_fusion = lines
    assert len(kernels) == 3 * 7
    assert all(fused == "0" for _, _, fused in kernels)
    assert int(with_fusion[2]) > 0


def test_without_triton_a_gpu_takes_the_plain_form(monkeypatch):
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: None)
    backends._has_triton.cache_clear()
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        assert not backends._has_triton()
        assert not backends._has_triton()
    backends._has_triton.cache_clear()
    assert [w.category for w in heard] == [build.KernelWarning]
    assert "triton is not installed" in str(heard[0].message)
    assert "pip install triton" in str(heard[0].message)


def test_the_cpu_needs_no_triton(tmp_path):
    code = (
        "import sys, torch; sys.modules['triton'] = None; from spikingmoe.layers.neuron import LIF;"
        "x = torch.ones(2, 3, requires_grad=True); LIF()(x).sum().backward();"
        "print('spikingmoe.kernels.cuda' in sys.modules)"
    )
    assert run(tmp_path, "-c", code).split() == ["False"]


def test_every_device_has_the_same_kernels():
    """What one module offers, the other does: found in their sources, as triton may be missing."""
    names = []
    for module in ("cpu", "cuda"):
        source = (build.HERE / f"{module}.py").read_text(encoding="utf-8")
        names.append(re.findall(r"^def ([a-z]\w+)\(", source, flags=re.MULTILINE))
    assert names[0] == names[1]
    assert len(names[0]) == 10


def test_devices_without_kernels():
    assert not backends.can_fuse(torch.zeros(2, 3, device="meta"))
