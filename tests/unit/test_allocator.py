"""Freed memory stays with the process."""

import platform
import resource

import pytest
import torch

from spikingmoe.kernels import keep_freed_memory

PAGE = 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_a_large_block_is_not_mapped_anew():
    """Writing to 64 MiB costs 16,384 page faults when it is new, later on hardly any.

    Aligned blocks rarely fit the hole of the one before exactly: a few are made until one stays.
    """
    assert keep_freed_memory()
    size = 2**24
    for _ in range(12):
        torch.empty(size).fill_(1.0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.empty(size).fill_(1.0)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert faults < size * 4 // PAGE // 10


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory.__wrapped__()
