"""`python -m spikingmoe.doctor.torch_facts DATA_DIR BUILD MODULE...`: imports, and what only torch can tell."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from spikingmoe.doctor import imports
from spikingmoe.doctor.check import one_line
from spikingmoe.doctor.child import tell


def main(data_dir: str, build: bool, modules: list[str]) -> None:
    """Tell of each module, then `torch`, `kernels` and `data`, each with the error where there is one."""
    imports.main(modules)
    for name, look in (
        ("torch", torch_facts),
        ("kernels", lambda: kernel_facts(build)),
        ("data", lambda: data_facts(data_dir)),
    ):
        _tell(name, look)


def torch_facts() -> dict[str, object]:
    """The device and the number of threads."""
    import torch

    cuda = torch.cuda.is_available()
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "cuda": cuda,
        "cuda_build": torch.version.cuda,
        "devices": names if cuda else [],
        "cuda_bf16": bool(cuda and torch.cuda.is_bf16_supported(including_emulation=False)),
        "threads": torch.get_num_threads(),
    }


def kernel_facts(build: bool) -> dict[str, object]:
    """Whether the kernels are switched off, cached, built and loaded."""
    from spikingmoe.kernels import build as kernels

    if kernels.is_switched_off():
        return {"off": True}
    compiler, cached = kernels.find_compiled()
    found: dict[str, object] = {"compiler": compiler, "cached": cached and str(cached)}
    found["folder"] = str(kernels.cache_folder())
    if build or cached is not None:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found["loaded"] = kernels.load_library() is not None
        found["warnings"] = [one_line(str(w.message)) for w in said]
    return found


def data_facts(data_dir: str) -> dict[str, object]:
    """Which published data sets lie in the data folder."""
    from spikingmoe.data.published import PUBLISHED, data_home, missing

    folder = Path(data_dir) if data_dir else data_home()
    there = {name: not missing(name, folder) for name in PUBLISHED}
    return {"folder": str(folder), "there": there}


def _tell(name: str, look: Callable[[], dict[str, object]]) -> None:
    try:
        tell(name, look())
    except (Exception, SystemExit) as error:
        tell(name, {"error": one_line(error)})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] == "build", sys.argv[3:])
