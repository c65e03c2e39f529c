"""Which matrix kernels NumPy is told to take, and that commands of the command line tell it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hardware.jobs import interpreter


@pytest.mark.parametrize(
    ("flags", "kernels"),
    [
        ("fpu sse3 avx2 fma avx512f avx512dq avx512bw avx512vl", "SkylakeX"),
        ("fpu sse3 avx2 fma avx512f", "Haswell"),
        ("fpu sse3", None),
    ],
)
def test_matrix_kernels_are_those_that_the_processor_has(
    flags: str, kernels: str | None, tmp_path: Path
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor : 0\nflags : {flags}\n")
    assert interpreter.matrix_kernels(info).get("OPENBLAS_CORETYPE") == kernels
    assert interpreter.matrix_kernels(tmp_path / "missing") == {}


@pytest.mark.parametrize("given", [None, "Sandybridge"])
def test_a_command_tells_numpy_before_it_is_loaded_unless_the_user_did(given: str | None) -> None:
    code = (
        "import os, sys, spikingmoe.cli.main as cli\n"
        "assert 'numpy' not in sys.modules\n"
        "assert cli.main(['presets']) == 0\n"
        "assert 'numpy' in sys.modules\n"
        "print(os.environ.get('OPENBLAS_CORETYPE', ''))\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"}
    if given:
        environment["OPENBLAS_CORETYPE"] = given
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment
    )
    wanted = given or interpreter.matrix_kernels().get("OPENBLAS_CORETYPE", "")
    assert done.stdout.splitlines()[-1] == wanted
