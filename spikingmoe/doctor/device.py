"""The processor and the GPU, and which precision suits them."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spikingmoe.doctor.check import Check

TOPIC = "device"
#: Flags of /proc/cpuinfo that decide how fast matrix products and the fused kernels are.
VECTORS = ("avx2", "avx512f", "neon", "asimd")
BF16 = ("avx512_bf16", "amx_bf16", "bf16")


def cpu_flags(text: str | None = None) -> set[str]:
    """The flags of the first processor in the text of /proc/cpuinfo; none where there is no such file."""
    if text is None:
        path = Path("/proc/cpuinfo")
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for line in text.splitlines():
        if line.startswith(("flags", "Features")):
            return set(line.partition(":")[2].split())
    return set()


def processor_check(flags: set[str], cores: int | None = None) -> Check:
    """Cores and vector units."""
    cores = len(os.sched_getaffinity(0)) if cores is None else cores
    have = [name for name in (*VECTORS, *BF16) if name in flags]
    vectors = any(name in flags for name in VECTORS)
    return Check(
        topic=TOPIC,
        name="processor",
        state="ok" if vectors else "warning",
        found=f"{cores} cores, {platform.machine()}, {' '.join(have) or 'no vector units found'}",
        cost="" if vectors else "training is several times slower",
        fix="" if vectors else "use a processor with avx2, or --device cuda",
    )


def device_checks(flags: set[str], facts: Mapping[str, Any]) -> Iterator[Check]:
    """GPU and precision.

    Args:
        facts: as `torch_facts` tells them; empty or with `error` where torch cannot be asked.
    """
    yield processor_check(flags)
    if not facts or "error" in facts:
        yield Check(topic=TOPIC, name="GPU", state="warning",
                    found=f"not looked at: {facts.get('error', 'torch did not answer')}",
                    cost="training may be slow", fix="mend torch first")  # fmt: skip
        return
    if facts["cuda"]:
        yield Check(topic=TOPIC, name="GPU", state="ok",
                    found=f"{', '.join(facts['devices'])} (CUDA {facts['cuda_build']})")  # fmt: skip
    else:
        build = facts["cuda_build"]
        why = f"torch is built for CUDA {build}, no device" if build else "torch is built for CPUs"
        yield Check(topic=TOPIC, name="GPU", state="warning", found=f"none ({why})",
                    cost="training runs on the CPU; the small and base recipes take days",
                    fix="none needed for the demo; with an NVIDIA GPU: its driver, and a CUDA "
                        "build of torch")  # fmt: skip
    fast = facts["cuda_bf16"] if facts["cuda"] else any(name in flags for name in BF16)
    yield Check(
        topic=TOPIC,
        name="precision",
        state="ok",
        found="--precision bf16 is worth a try: this device multiplies bfloat16 itself"
        if fast
        else "stay with --precision fp32: this device has no bfloat16 of its own",
    )
