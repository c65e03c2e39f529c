"""Lava's stock CPU models without a global step: each process goes on as soon as its inputs are there.

Lava's runtime service asks every process at every step whether it is done, which costs far more
than the arithmetic. A Lava network is a Kahn network (each process receives one message per port and
step, each synapse sends before it receives), so its output does not depend on the schedule, and
channels of one slot are enough to keep it from locking up. The stock `run_spk` is what runs. A run must
not be split: between two runs of this kind messages would be lost.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from functools import cache

from hardware.lava.compat import lava_imports

with lava_imports():
    from lava.magma.core.model.py.model import PyAsyncProcessModel, PyLoihiProcessModel
    from lava.magma.core.sync.protocols.async_protocol import AsyncProtocol


class _FreeRunning(PyAsyncProcessModel):
    """Calls the stock model's `run_spk` once per step."""

    time_step: int  # both are the stock model's
    run_spk: Callable[[], None]

    def run_async(self) -> None:
        try:
            while self.time_step < self.num_steps:
                self.time_step += 1
                self.run_spk()
        except BaseException:
            traceback.print_exc()  # into the worker's log: Lava itself keeps silent
            sys.stderr.flush()
            raise


@cache
def free_running(model: type[PyLoihiProcessModel]) -> type[PyAsyncProcessModel]:
    """The stock `model` under Lava's asynchronous protocol."""
    members = {
        "implements_process": model.implements_process,
        "implements_protocol": AsyncProtocol,
        "__module__": __name__,
    }
    return type(f"{model.__name__}FreeRunning", (_FreeRunning, model), members)
