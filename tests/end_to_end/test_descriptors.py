"""A whole model on Lava under a low limit of open files: the number that the refusal names suffices."""

import re
import resource
import subprocess
import sys

import pytest

SCRIPT = """
import sys
from spikingmoe import create_model
from spikingmoe.data import load_data
from hardware.lowering import lower
from hardware.simulate import simulate
images = load_data("digits").test.images[:1]
try:
    trace = simulate(lower(create_model("digits")), images, backend="lava-stock", arithmetic="fixed")
except ValueError as error:
    sys.exit(str(error))
print(trace.meta["processes"], "processes")
"""


def run(soft: int, hard: int) -> subprocess.CompletedProcess:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    command = [sys.executable, "-c", SCRIPT]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, preexec_fn=limit)


@pytest.mark.lava
@pytest.mark.slow
def test_the_limit_that_the_refusal_names_is_enough():
    refused = run(256, 400)
    found = re.search(r"need about (\d+) open files; the hard limit is 400", refused.stderr)
    assert refused.returncode == 1, refused.stderr
    assert found, refused.stderr
    enough = run(256, int(found[1]))  # the soft limit is raised by the run itself
    assert enough.returncode == 0, enough.stderr
    assert "processes" in enough.stdout
