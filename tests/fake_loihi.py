"""A stand-in for Intel's package: modules of its names whose models compute on the CPU and keep a record.

It provides what our backend and `Loihi2HwCfg` import, no more. Models for neuro cores are Lava's own
bit-accurate ones under the class that Intel's have. As on the chip, graded messages leave it as 24 bits
without their sign extended. Each model appends a JSON line to the file in FAKE_LOIHI_RECORD.
"""

from __future__ import annotations

import json
import os
import textwrap
from pathlib import Path

import pytest

MODULES = {
    "lava/utils/loihi2_profiler.py": "",
    "lava/magma/core/model/c/model.py": "class CLoihiProcessModel:\n    pass\n",
    "lava/magma/core/model/nc/model.py": "class AbstractNcProcessModel:\n    pass\n",
    "lava/proc/fake_record.py": """
        import json, os, traceback
        import numpy as np

        def record(model, **facts):
            line = {"model": type(model).__name__, "step": model.time_step, **facts}
            with open(os.environ["FAKE_LOIHI_RECORD"], "a") as file:
                file.write(json.dumps(line) + "\\n")

        def variable(model, name):
            value = getattr(model, name) if hasattr(model, name) else model.proc_params.get(name)
            value = np.asarray(value.toarray() if hasattr(value, "toarray") else value)
            return [value.dtype.kind, float(value.min()), float(value.max())]

        class Recorded:
            def run_spk(self):
                try:
                    self.note()
                    super().run_spk()
                except BaseException:
                    traceback.print_exc()  # Lava itself keeps silent
                    raise

            def note(self):
                if self.time_step == 1:
                    seen = {name: variable(self, name) for name in self.watched}
                    board = {k: os.environ.get(k) for k in ("SLURM", "LOIHI_GEN")}
                    params = {
                        k: int(self.proc_params.get(k, -1))
                        for k in ("reset_interval", "reset_offset")
                    }
                    record(self, variables=seen, params=params, board=board)
        """,
    "lava/proc/lif/ncmodels.py": """
        from lava.magma.core.decorator import implements, requires
        from lava.magma.core.model.nc.model import AbstractNcProcessModel
        from lava.magma.core.resources import Loihi2NeuroCore
        from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
        from lava.proc.fake_record import Recorded
        from lava.proc.lif.models import PyLifResetModelBitAcc
        from lava.proc.lif.process import LIFReset

        @implements(proc=LIFReset, protocol=LoihiProtocol)
        @requires(Loihi2NeuroCore)
        class NcL2ModelLifReset(Recorded, PyLifResetModelBitAcc, AbstractNcProcessModel):
            watched = ("du", "dv", "vth", "bias_mant", "bias_exp")
        """,
    "lava/proc/dense/ncmodels.py": """
        from lava.magma.core.decorator import implements, requires
        from lava.magma.core.model.nc.model import AbstractNcProcessModel
        from lava.magma.core.resources import Loihi2NeuroCore
        from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
        from lava.proc.dense.models import PyDenseModelBitAcc
        from lava.proc.dense.process import Dense
        from lava.proc.fake_record import Recorded

        @implements(proc=Dense, protocol=LoihiProtocol)
        @requires(Loihi2NeuroCore)
        class NcModelDense(Recorded, PyDenseModelBitAcc, AbstractNcProcessModel):
            watched = ("weights", "weight_exp", "num_message_bits")
        """,
    "lava/proc/sparse/ncmodels.py": """
        from lava.magma.core.decorator import implements, requires
        from lava.magma.core.model.nc.model import AbstractNcProcessModel
        from lava.magma.core.resources import Loihi2NeuroCore
        from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
        from lava.proc.fake_record import Recorded
        from lava.proc.sparse.models import PySparseModelBitAcc
        from lava.proc.sparse.process import Sparse

        @implements(proc=Sparse, protocol=LoihiProtocol)
        @requires(Loihi2NeuroCore)
        class NcModelSparse(Recorded, PySparseModelBitAcc, AbstractNcProcessModel):
            watched = ("weights", "weight_exp", "num_message_bits")
        """,
    "lava/proc/graded/ncmodels.py": """
        from lava.magma.core.decorator import implements, requires
        from lava.magma.core.model.nc.model import AbstractNcProcessModel
        from lava.magma.core.resources import Loihi2NeuroCore
        from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
        from lava.proc.fake_record import Recorded
        from lava.proc.graded.models import PyGradedVecModelFixed
        from lava.proc.graded.process import GradedVec

        @implements(proc=GradedVec, protocol=LoihiProtocol)
        @requires(Loihi2NeuroCore)
        class NcModelGradedVec(Recorded, PyGradedVecModelFixed, AbstractNcProcessModel):
            watched = ("vth", "exp")
        """,
    "lava/proc/embedded_io/spike.py": """
        import numpy as np
        from lava.magma.core.decorator import implements, requires
        from lava.magma.core.model.c.model import CLoihiProcessModel
        from lava.magma.core.model.py.model import PyLoihiProcessModel
        from lava.magma.core.model.py.ports import PyInPort, PyOutPort
        from lava.magma.core.model.py.type import LavaPyType
        from lava.magma.core.process.ports.ports import InPort, OutPort
        from lava.magma.core.process.process import AbstractProcess
        from lava.magma.core.resources import CPU
        from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
        from lava.proc.fake_record import record

        class _Adapter(AbstractProcess):
            def __init__(self, shape, num_message_bits=0):
                super().__init__(shape=shape, num_message_bits=num_message_bits)
                self.inp, self.out = InPort(shape=shape), OutPort(shape=shape)

        class PyToNxAdapter(_Adapter):
            pass

        class NxToPyAdapter(_Adapter):
            pass

        class _Model(PyLoihiProcessModel, CLoihiProcessModel):
            inp = LavaPyType(PyInPort.VEC_DENSE, np.int32)
            out = LavaPyType(PyOutPort.VEC_DENSE, np.int32)

            def run_spk(self):
                values, bits = self.inp.recv(), self.proc_params["num_message_bits"]
                record(self, bits=bits, neurons=len(values), kind=values.dtype.kind)
                self.out.send(values & 0xFFFFFF if bits else (values != 0).astype(np.int32))

        @implements(proc=PyToNxAdapter, protocol=LoihiProtocol)
        @requires(CPU)
        class CPyToNx(_Model):
            def run_spk(self):
                values, bits = self.inp.recv(), self.proc_params["num_message_bits"]
                record(self, bits=bits, neurons=len(values), kind=np.asarray(values).dtype.kind)
                self.out.send(values if bits else (values != 0).astype(np.int32))

        @implements(proc=NxToPyAdapter, protocol=LoihiProtocol)
        @requires(CPU)
        class CNxToPy(_Model):
            pass
        """,
}


class FakeLoihi:
    """The installed stand-in; `without` leaves modules out."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, without: tuple[str, ...] = ()
    ) -> None:
        self.record_path = folder / "record.jsonl"
        root = folder / "intel"
        for path, source in MODULES.items():
            if path not in without:
                file = root / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(textwrap.dedent(source))
        programs = folder / "bin"
        programs.mkdir()
        sinfo = programs / "sinfo"
        sinfo.write_text("#!/bin/sh\necho PARTITION AVAIL\necho oheogulch up\n")
        sinfo.chmod(0o755)
        monkeypatch.syspath_prepend(str(root))
        before = os.environ.get("PYTHONPATH")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(root), before])))
        monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("FAKE_LOIHI_RECORD", str(self.record_path))

    @property
    def record(self) -> list[dict]:
        """What the models noted down."""
        return [json.loads(line) for line in self.record_path.read_text().splitlines()]
