"""The packages that pyproject.toml names: what each is for, and how it is installed."""

from __future__ import annotations

import re
from dataclasses import dataclass

CORE, LAVA, DEV = "needed", "lava", "dev"
LAVA_COMMAND = "pip install --no-deps --ignore-requires-python lava-nc"
NO_LAVA = "no run on Lava: neither demo nor verify nor simulate --backend lava"


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """A distribution on the package index.

    Attributes:
        versions: as in pyproject.toml, such as ">=1.26,<3"; empty where all will do.
        part: `CORE`, or the extra that it belongs to.
        module: what is imported.
        cost: what is lost without it.
        command: where it is not `pip install` alone.
        slow: to import, so that it is tried only when a thorough examination is asked for.
    """

    name: str
    versions: str = ""
    part: str = CORE
    module: str
    cost: str = "no command but doctor runs"
    command: str = ""
    slow: bool = False

    @property
    def is_needed(self) -> bool:
        """By the demo."""
        return self.part in (CORE, LAVA)

    @property
    def fix(self) -> str:
        """The command that installs it."""
        return self.command or f"pip install '{self.name}{self.versions}'"


REQUIREMENTS = (
    Requirement(name="numpy", versions=">=1.26,<3", module="numpy"),
    Requirement(name="torch", versions=">=2.10", module="torch"),
    Requirement(name="snntorch", versions=">=1.0", module="snntorch"),
    Requirement(name="lightning", versions=">=2.6", module="lightning", slow=True),
    Requirement(name="jsonargparse", versions=">=4.40", module="jsonargparse"),
    Requirement(name="scipy", versions=">=1.11", module="scipy.sparse"),
    Requirement(name="scikit-learn", versions=">=1.4", module="sklearn.datasets", slow=True,
                cost="no digits: no demo"),
    Requirement(name="matplotlib", versions=">=3.8", module="matplotlib.image", slow=True,
                cost="no pictures: no demo, report, inspect, lesion or map"),
    Requirement(name="altair", versions=">=6", module="altair", slow=True,
                cost="no report page: no demo"),
    Requirement(name="vl-convert-python", versions=">=1.9", module="vl_convert",
                cost="no report page: no demo"),
    Requirement(name="rich", versions=">=13", module="rich.table"),
    Requirement(name="jaxtyping", versions=">=0.2.34", module="jaxtyping"),
    Requirement(name="pillow", versions=">=10", module="PIL.Image"),
    Requirement(name="pyyaml", versions=">=6", module="yaml"),
    Requirement(name="lava-nc", part=LAVA, module="hardware.lava.execute", cost=NO_LAVA,
                command=LAVA_COMMAND),
    Requirement(name="networkx", versions="==2.8.7", part=LAVA, module="networkx", cost=NO_LAVA),
    Requirement(name="asteval", versions="==0.9.33", part=LAVA, module="asteval", cost=NO_LAVA),
    Requirement(name="tensorboard", versions=">=2.16", part="tensorboard", slow=True,
                module="tensorboard", cost="RUN/logs has CSV alone"),
    Requirement(name="tonic", versions=">=1.6", part="events", module="tonic", slow=True,
                cost="no event cameras: nmnist, dvsgesture, cifar10dvs"),
    Requirement(name="aedat", versions=">=2", part="events", module="aedat",
                cost="no cifar10dvs"),
    Requirement(name="nir", versions=">=1.0.6", part="nir", module="nir", cost="no spikingmoe nir"),
    Requirement(name="nirtorch", versions=">=2.0", part="norse", module="nirtorch", slow=True,
                cost="no --neuron norse"),
    Requirement(name="norse", part="norse", module="norse", slow=True, cost="no --neuron norse",
                command="pip install nir nirtorch && pip install --no-deps norse"),
    Requirement(name="spikingjelly", part="benchmark", module="spikingjelly", slow=True,
                cost="benchmarks/neuron_speed.py and train_speed.py lack a competitor",
                command="pip install loguru && pip install --no-deps spikingjelly"),
    Requirement(name="loguru", versions=">=0.7", part="benchmark", module="loguru",
                cost="benchmarks/neuron_speed.py and train_speed.py lack a competitor"),
    Requirement(name="neurobench", part="benchmark", module="neurobench", slow=True,
                cost="one cross-check of synaptic operations is skipped",
                command="pip install --no-deps neurobench"),
    Requirement(name="sanafe", versions=">=2.2.9", part="sanafe", module="sanafe", slow=True,
                cost="no simulate --backend sanafe"),
    Requirement(name="triton", versions=">=3.3", part="triton", module="triton", slow=True,
                cost="no fused kernels on a GPU; none are needed without one"),
    Requirement(name="optuna", versions=">=4.4", part="study", module="optuna", slow=True,
                cost="no benchmarks/energy_accuracy.py"),
    Requirement(name="submitit", versions=">=1.5", part="study", module="submitit", slow=True,
                cost="no --slurm of benchmarks/energy_accuracy.py"),
    *(Requirement(name=name, versions=versions, part="docs", module=module, slow=True,
                  cost="no notebooks, no make docs", command="make setup")
      for name, versions, module in (
          ("sphinx", ">=8", "sphinx"), ("myst-nb", ">=1.3", "myst_nb"),
          ("furo", ">=2025.7", "furo"), ("ipykernel", ">=6", "ipykernel"),
          ("nbclient", ">=0.10", "nbclient"), ("nbformat", ">=5.10", "nbformat"))),
    *(Requirement(name=name, versions=versions, part=DEV, module=module, slow=True,
                  cost="no tests, lint or types", command="make setup")
      for name, versions, module in (
          ("beartype", ">=0.18", "beartype"), ("hypothesis", ">=6.100", "hypothesis"),
          ("import-linter", ">=2.0", "importlinter"), ("pyright", ">=1.1.380", "pyright"),
          ("pytest", ">=8", "pytest"), ("pytest-timeout", ">=2.3", "pytest_timeout"),
          ("pytest-xdist", ">=3.6", "xdist"),
          ("ruff", ">=0.6", "ruff"), ("safetensors", ">=0.5", "safetensors"))),
)  # fmt: skip


def is_within(version: str, versions: str) -> bool:
    """Whether a version meets a specifier of `>=`, `<` and `==`, by its numbers alone.

    >>> is_within("2.13.0+cpu", ">=2.10"), is_within("3.0", ">=1.26,<3")
    (True, False)
    """
    for bound in filter(None, versions.split(",")):
        found = re.fullmatch(r"(>=|<|==)([\d.]+)", bound)
        if found is None:
            raise ValueError(f"version bound {bound!r}; use >=, < or == and numbers")
        have, want = _numbers(version), _numbers(found[2])
        met = {">=": have >= want, "<": have < want, "==": have == want}
        if not met[found[1]]:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"\d+(\.\d+)*", version)
    parts = [int(part) for part in found[0].split(".")] if found else []
    while parts and parts[-1] == 0:  # 3.0 is 3
        parts.pop()
    return tuple(parts)
