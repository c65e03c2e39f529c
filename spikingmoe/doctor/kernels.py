"""The compiler of the fused CPU kernels, and whether they are there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from spikingmoe.doctor.check import Check

TOPIC = "fused kernels"
SLOW = "neurons run in their plain form, which is several times slower"
INSTALL = "apt-get install g++ (or set CXX to a C++17 compiler)"


def kernel_checks(facts: Mapping[str, Any]) -> Iterator[Check]:
    """Compiler, and compiled kernels.

    Args:
        facts: as `kernel_facts` tells them; empty or with `error` where there was no answer.
    """
    if facts.get("off"):
        yield Check(topic=TOPIC, name="kernels", state="warning",
                    found="switched off by SPIKINGMOE_KERNELS=off", cost=SLOW,
                    fix="unset SPIKINGMOE_KERNELS")  # fmt: skip
        return
    if "error" in facts or not facts:
        error = facts.get("error", "torch did not answer")
        lacks = "compiler" in error
        yield Check(topic=TOPIC, name="compiler", state="missing" if lacks else "warning",
                    found=error, cost=SLOW, fix=INSTALL if lacks else "mend torch first")  # fmt: skip
        return
    yield Check(topic=TOPIC, name="compiler", state="ok", found=facts["compiler"])
    said = "; ".join(facts.get("warnings", ()))
    if facts.get("loaded"):
        yield Check(topic=TOPIC, name="kernels", state="warning" if said else "ok",
                    found=said or f"built and loaded, in {facts['folder']}",
                    cost="they run on one thread" if said else "",
                    fix="install OpenMP (libgomp1, or libomp-dev for clang)" if said else "")  # fmt: skip
    elif "loaded" in facts:
        yield Check(topic=TOPIC, name="kernels", state="missing", found=said or "cannot be built",
                    cost=SLOW, fix=INSTALL)  # fmt: skip
    else:
        yield Check(topic=TOPIC, name="kernels", state="ok",
                    found="not built yet: the first training does it, "
                          "and spikingmoe doctor --thorough")  # fmt: skip
