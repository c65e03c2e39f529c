"""Run a built network on a Loihi 2 board through Intel's package, from this interpreter.

Lava's compiler chooses the models: those for neuro cores and embedded processors come with Intel's package
and are preferred by `Loihi2HwCfg`. What must not happen is that a population without such a model quietly
runs on the CPU instead, so each choice is looked at.
"""

from __future__ import annotations

import os
import shutil
from typing import Any

from hardware.errors import BackendError
from hardware.lava.compat import lava_imports
from hardware.lava.execute import FIXED, actors, run
from hardware.lava.network import Network
from hardware.lava.recorder import Recorder, recorder_model
from hardware.lava.system import CHANNEL_SLOTS

with lava_imports():
    from lava.magma.compiler.compiler_graphs import ProcGroupDiGraphs
    from lava.magma.core.model.c.model import (  # type: ignore[reportMissingImports]  # Intel's
        CLoihiProcessModel,
    )
    from lava.magma.core.model.nc.model import (  # type: ignore[reportMissingImports]  # Intel's
        AbstractNcProcessModel,
    )
    from lava.magma.core.run_configs import Loihi2HwCfg
    from lava.proc.io.source import RingBuffer as Source
    from lava.utils import loihi

__all__ = ["actors", "run", "start"]

HOST, BINARY, GENERATION = "NXSDKHOST", "HOST_BINARY", "LOIHI_GEN"  # what Intel's package reads


class ChipConfig(Loihi2HwCfg):
    """`Loihi2HwCfg` that refuses a process of the network which would run on the CPU."""

    def select(self, process: Any, proc_models: list[Any]) -> Any:
        chosen = super().select(process, proc_models)
        on_host = type(process) in (self.exception_proc_model_map or {})
        if not on_host and not issubclass(chosen, (AbstractNcProcessModel, CLoihiProcessModel)):
            raise BackendError(
                f"Lava process '{process.name}': the installed Loihi package has no model of "
                f"{type(process).__name__} for the chip, only {chosen.__name__} for the CPU; use a "
                f"package that fits lava-nc 0.10, or backend 'lava'"
            )
        return chosen


def start(network: Network, *, fixed: bool, schedule: str = "stepwise") -> None:
    """Choose the board, compile the network for it and load it; it waits for `run`.

    Raises:
        BackendError: no board can be reached, or a process has no model for the chip.
    """
    assert fixed
    assert schedule == "stepwise"
    choose_board()
    tracks = network.recorder.proc_params["tracks"]
    host: dict[Any, Any] = {Source: FIXED[Source], Recorder: recorder_model(len(tracks))}
    search, found = ProcGroupDiGraphs._find_proc_models, {}

    def find_models(proc: Any) -> list[Any]:
        # Lava executes every file of a process's folder to find its models: once per class will do.
        kind = type(proc)
        if kind not in found:
            found[kind] = [host[kind]] if kind in host else search(proc)
        return found[kind]

    ProcGroupDiGraphs._find_proc_models = staticmethod(find_models)
    network.recorder.create_runtime(
        run_cfg=ChipConfig(exception_proc_model_map=host),
        compile_config={"pypy_channel_size": CHANNEL_SLOTS},
    )


def choose_board() -> None:
    """Tell Intel's package where the board is, from the environment.

    `NXSDKHOST` names a board on the network; otherwise SLURM finds one, as in Intel's cloud
    (`PARTITION`, `BOARD` and `LOIHI_GEN` narrow it down).

    Raises:
        BackendError: neither is there.
    """
    generation = loihi.ChipGeneration(os.environ.get(GENERATION, "N3B3"))
    try:
        if HOST in os.environ:
            binary = os.environ.get(BINARY, "nxcore/bin/nx_driver_server")
            loihi.use_ethernet_host(os.environ[HOST], binary, generation)
        elif shutil.which("sinfo"):
            loihi.use_slurm_host(os.environ.get("PARTITION"), os.environ.get("BOARD"), generation)
        else:
            raise ValueError(f"{HOST} is not set and there is no SLURM (`sinfo`)")
    except (ValueError, ImportError) as error:
        raise BackendError(
            f"no Loihi 2 board can be reached: {error}; run within Intel's cloud, or set {HOST} to "
            f"the address of your board"
        ) from None
