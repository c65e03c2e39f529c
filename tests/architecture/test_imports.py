"""Who may import whom, read from the source; each rule is also shown to catch an offender."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    p for package in ("spikingmoe", "hardware") for p in (ROOT / package).rglob("*.py")
)
HEAVY = ("torch", "snntorch", "lightning", "spikingmoe")


def imported(source: str, module: str) -> set[str]:
    """Absolute names of everything that a module's source imports, at any depth of nesting.

    `from a import b` counts as a.b, since b may be a module. `import_module("...")` and
    `__import__("...")` with a literal count too.
    """
    package = module if module.endswith(".__init__") else module.rpartition(".")[0]
    package = package.removesuffix(".__init__")
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                above = parts[: len(parts) - (node.level - 1)]
                base = ".".join([*above, base]).strip(".")
            names |= {f"{base}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = (
                node.func.attr
                if isinstance(node.func, ast.Attribute)
                else getattr(node.func, "id", "")
            )
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                names.add(node.args[0].value)
    return names


def within(module: str, *packages: str) -> bool:
    return any(module == p or module.startswith(f"{p}.") for p in packages)


def breaches(module: str, source: str) -> list[str]:
    """The rules that a module breaks, as lines."""
    found = []
    for name in sorted(imported(source, module)):
        if within(module, "hardware") and not within(module, "hardware.lowering"):
            if within(name, *HEAVY):
                found.append(f"{module} imports {name}: only hardware.lowering knows torch")
            if within(name, "hardware.lowering"):
                found.append(f"{module} imports {name}: lowering brings torch with it")
        if within(name, "lava") and not within(module, "hardware.lava"):
            found.append(f"{module} imports {name}: Lava is imported in hardware.lava only")
        if within(module, "hardware.ir", "hardware.passes", "hardware.energy") and within(
            name, "hardware.lava", "hardware.simulate"
        ):
            found.append(f"{module} imports {name}: it must run without any backend")
        if within(module, "hardware.ir") and within(name, "hardware.passes", "hardware.energy"):
            found.append(f"{module} imports {name}: the representation does not know its users")
        if (
            within(module, "spikingmoe")
            and not within(
                module,
                "spikingmoe.cli",
                "spikingmoe.doctor",
                "spikingmoe.train.checkpoint",
                "spikingmoe.train.operations",
                "spikingmoe.train.quantised",
            )
            and not within(module, "spikingmoe.report")
            and not (
                within(module, "spikingmoe.data.frame_cache")
                and within(name, "hardware.files", "hardware.errors")
            )
            and within(name, "hardware")
        ):
            found.append(
                f"{module} imports {name}: only the command line, the doctor, checkpoints, quantising and counting may"
            )
        if within(module, "spikingmoe.report") and within(name, "hardware", "torch"):
            found.append(f"{module} imports {name}: the report shows what it is given")
        if within(module, "spikingmoe.functional") and within(
            name, "spikingmoe.layers", "spikingmoe.model", "spikingmoe.train"
        ):
            found.append(f"{module} imports {name}: equations do not know modules")
        if (
            within(module, "spikingmoe")
            and not within(module, "spikingmoe.cli")
            and within(name, "spikingmoe.cli")
        ):
            found.append(f"{module} imports {name}: the command line is on top")
    return found


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def test_there_is_something_to_check():
    names = {name_of(p) for p in SOURCES}
    assert {"spikingmoe.model", "hardware.ir.graph", "hardware.lowering.from_torch"} <= names
    assert any(
        "hardware" in n
        for n in imported((ROOT / "hardware/verify.py").read_text(), "hardware.verify")
    )


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_module_keeps_the_rules(path):
    assert breaches(name_of(path), path.read_text()) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("hardware.verify", "import torch"),
        ("hardware.verify", "import torch.nn as nn"),
        ("hardware.ir.graph", "from torch import nn"),
        ("hardware.ir.graph", "def f():\n    import torch"),
        ("hardware.ir.graph", "import importlib\nimportlib.import_module('torch')"),
        ("hardware.ir.graph", "t = __import__('snntorch')"),
        ("hardware.trace", "try:\n    import spikingmoe\nexcept ImportError:\n    pass"),
        ("hardware.energy.counts", "from spikingmoe.config import ModelConfig"),
        ("hardware.energy.counts", "from hardware.lowering import lower"),
        ("hardware.passes.bounds", "from lava.proc.lif.process import LIF"),
        ("hardware.passes.bounds", "import hardware.lava.run"),
        ("hardware.ir.nodes", "from ..lava import run"),
        ("hardware.ir.nodes", "from hardware import lava"),
        ("hardware.ir.reference", "from hardware.passes import quantise"),
        ("hardware.simulate", "import lava.magma"),
        ("spikingmoe.model", "from hardware.ir import SpikeGraph"),
        ("spikingmoe.model", "import hardware"),
        ("spikingmoe.train.fit", "from hardware.files import write_json"),
        ("spikingmoe.data.events", "from hardware.files import write_json"),
        ("spikingmoe.data.frame_cache", "from hardware.ir.graph import SpikeGraph"),
        ("spikingmoe.layers.moe", "from lava import magma"),
        ("spikingmoe.report.page", "import torch"),
        ("spikingmoe.functional.lif", "from spikingmoe.layers.neuron import LIF"),
        ("spikingmoe.functional.__init__", "from ..layers import LIF"),
        ("spikingmoe.train.fit", "from spikingmoe.cli import chain"),
    ],
)
def test_offenders_are_caught(module, source):
    assert breaches(module, source) != []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("hardware.lowering.from_torch", "import torch\nfrom spikingmoe.model import Block"),
        ("hardware.lava.network", "from lava.proc.lif.process import LIF"),
        ("hardware.simulate", "def f():\n    from hardware.lava.run import run_lava"),
        ("spikingmoe.cli.lower", "from hardware.lowering import lower"),
        ("spikingmoe.train.checkpoint", "from hardware.files import read_archive"),
        ("spikingmoe.data.frame_cache", "from hardware.files import read_archive"),
        ("hardware.ir.nodes", "import torchlike\nimport numpy"),
        ("hardware.ir.nodes", "text = 'import torch'"),
    ],
)
def test_what_is_allowed_passes(module, source):
    assert breaches(module, source) == []


def test_the_top_of_hardware_is_empty():
    assert (ROOT / "hardware/__init__.py").read_bytes() == b""
    assert (ROOT / "hardware/lava/__init__.py").read_bytes() == b""


def test_no_file_is_called_utils():
    names = {p.name for p in [*SOURCES, *(ROOT / "tests").rglob("*.py")]}
    assert not names & {"utils.py", "util.py", "helpers.py", "common.py", "misc.py"}


def test_packages_only_re_export():
    """Besides the top package, an `__init__` has imports, a docstring and a table, no functions."""
    for path in SOURCES:
        if path.name == "__init__.py" and path.parent.name not in ("spikingmoe", "data"):
            kinds = {type(n).__name__ for n in ast.parse(path.read_text()).body}
            assert not kinds & {"FunctionDef", "ClassDef"}, path


def test_errors_have_names():
    """No `raise Exception`, no bare `except`."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                assert getattr(node.exc.func, "id", "") != "Exception", f"{path}:{node.lineno}"
            if isinstance(node, ast.ExceptHandler) and node.type is None:
                raise AssertionError(f"{path}:{node.lineno}: a bare except")
