"""Run a built network on Lava's CPU simulator, in this interpreter."""

from __future__ import annotations

from typing import Any, Literal

from hardware.lava.compat import lava_imports
from hardware.lava.free_running import free_running
from hardware.lava.network import Network
from hardware.lava.recorder import Recorder, recorder_model
from hardware.lava.system import CHANNEL_SLOTS

with lava_imports():
    from lava.magma.compiler.compiler_graphs import ProcGroupDiGraphs
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

Schedule = Literal["free", "stepwise"]

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


def start(network: Network, *, fixed: bool, schedule: Schedule = "free") -> None:
    """Compile the network and start its operating-system processes; they wait for `run`."""
    models: dict[Any, Any] = dict(FIXED if fixed else FLOAT)
    models[Recorder] = recorder_model(len(network.recorder.proc_params["tracks"]))
    if schedule == "free":
        models = {process: free_running(model) for process, model in models.items()}
    # Lava looks for models by executing every file of a process's folder, once per process. The
    # models are known here, so the search is answered directly.
    ProcGroupDiGraphs._find_proc_models = staticmethod(lambda proc: [models[type(proc)]])
    network.recorder.create_runtime(
        run_cfg=Loihi2SimCfg(exception_proc_model_map=models),
        compile_config={"pypy_channel_size": CHANNEL_SLOTS},
    )


def run(network: Network) -> None:
    """All hardware steps in one go (a free-running network must not be split)."""
    network.recorder.run(condition=RunSteps(num_steps=network.steps))


def actors(network: Network) -> dict[int, str]:
    """Operating-system process ids of the started network with the names of their Lava processes."""
    runtime: Any = network.recorder.runtime
    names = [process.name for process in runtime._executable.proc_builders]
    started = runtime._messaging_infrastructure.actors
    names += ["runtime service"] * (len(started) - len(names))
    return {actor.pid: name for actor, name in zip(started, names, strict=True)}
