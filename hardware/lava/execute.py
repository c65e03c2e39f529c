"""Run a built network on Lava's CPU simulator, in this interpreter."""

from __future__ import annotations

from typing import Any

from hardware.lava.compat import lava_imports
from hardware.lava.fast_models import FAST_FIXED, FAST_FLOAT
from hardware.lava.free_running import free_running
from hardware.lava.fused import FusedSegment, segment_model
from hardware.lava.network import Network
from hardware.lava.recorder import Recorder, recorder_model
from hardware.lava.settings import Settings
from hardware.lava.subnetwork import SubNetworkModel
from hardware.lava.system import CHANNEL_SLOTS

with lava_imports():
    from lava.magma.compiler.compiler_graphs import ProcGroupDiGraphs
    from lava.magma.core.process.process import AbstractProcess
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc.conv import models as conv
    from lava.proc.conv.process import Conv
    from lava.proc.dense import models as dense
    from lava.proc.dense.process import Dense
    from lava.proc.io import source
    from lava.proc.lif import models as lif
    from lava.proc.lif.process import LIF, LIFReset
    from lava.proc.sparse import models as sparse
    from lava.proc.sparse.process import Sparse


FLOAT = {
    source.RingBuffer: source.PySendModelFloat,
    LIF: lif.PyLifModelFloat,
    LIFReset: lif.PyLifResetModelFloat,
    Dense: dense.PyDenseModelFloat,
    Sparse: sparse.PySparseModelFloat,
    Conv: conv.PyConvModelFloat,
}
FIXED = {
    source.RingBuffer: source.PySendModelFixed,
    LIF: lif.PyLifModelBitAcc,
    LIFReset: lif.PyLifResetModelBitAcc,
    Dense: dense.PyDenseModelBitAcc,
    Sparse: sparse.PySparseModelBitAcc,
    Conv: conv.PyConvModelFixed,
}


class RunConfiguration(Loihi2SimCfg):
    """Which model implements each process.

    Args:
        fixed: bit-accurate models instead of floating point.
    """

    def __init__(self, settings: Settings, *, fixed: bool) -> None:
        super().__init__()
        self.stock: dict[Any, Any] = dict(FIXED if fixed else FLOAT)
        if settings.stock_models == "fast":
            self.stock |= FAST_FIXED if fixed else FAST_FLOAT
        self.settings = settings

    def select(self, process: AbstractProcess, proc_models: list[Any]) -> Any:
        """The model of a process; `proc_models`, what Lava found, is not needed."""
        if isinstance(process, FusedSegment) and self.settings.network == "nested":
            return SubNetworkModel
        if isinstance(process, FusedSegment):
            model = segment_model(process)
        elif isinstance(process, Recorder):
            model = recorder_model(len(process.proc_params["tracks"]))
        else:
            model = self.stock[type(process)]
        return free_running(model) if self.settings.schedule == "free" else model


def start(network: Network, settings: Settings, *, fixed: bool) -> None:
    """Compile the network and start its operating-system processes; they wait for `run`."""
    # Lava looks for models by executing every file of a process's folder, once per process. The
    # configuration knows them, so the search is answered directly.
    ProcGroupDiGraphs._find_proc_models = staticmethod(lambda proc: [])
    network.root.create_runtime(
        run_cfg=RunConfiguration(settings, fixed=fixed),
        compile_config={"pypy_channel_size": CHANNEL_SLOTS},
    )


def run(network: Network) -> None:
    """All steps in one go (a free-running network must not be split)."""
    network.root.run(condition=RunSteps(num_steps=network.runs))


def actors(network: Network) -> dict[int, str]:
    """Operating-system process ids of the started network with the names of their Lava processes."""
    runtime: Any = network.root.runtime
    names = [process.name for process in runtime._executable.proc_builders]
    started = runtime._messaging_infrastructure.actors
    names += ["runtime service"] * (len(started) - len(names))
    return {actor.pid: name for actor, name in zip(started, names, strict=True)}
