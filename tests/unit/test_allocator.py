"""Freed memory stays with the process."""

import platform
import subprocess
import sys
import textwrap

import pytest

from hardware.jobs.interpreter import fresh_environment
from spikingmoe.kernels import keep_freed_memory

PAGE = 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_a_large_block_is_not_mapped_anew():
    """Writing to 64 MiB costs 16,384 page faults when it is new, later on hardly any.

    Aligned blocks rarely fit the hole of the one before exactly: a few are made until one stays. In a
    process of its own, whose heap nothing else has cut up.
    """
    script = """
        import resource, torch
        from spikingmoe.kernels import keep_freed_memory
        assert keep_freed_memory()
        for _ in range(12):
            torch.empty(2**24).fill_(1.0)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(4):
            torch.empty(2**24).fill_(1.0)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    told = subprocess.run(command, env=fresh_environment(), capture_output=True, check=True)
    assert int(told.stdout) < 2**24 * 4 // PAGE // 10


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory.__wrapped__()
