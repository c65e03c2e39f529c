"""Compiling the CPU kernels: what happens where that fails, and what is found again in the cache."""

import os
import subprocess
import sys
import warnings

import pytest
import torch

from spikingmoe.kernels import build
from spikingmoe.layers.linear import LinearNorm
from spikingmoe.layers.neuron import LIF

COMPILER = build.shutil.which("g++")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no g++ on the PATH")

# The kernels without optimisation compile six times faster, and are the same kernels.
HASTY = """#!/bin/sh
echo run >> "$0.log"
case "$*" in *--version*) exec g++ --version;; esac
{extra}
exec g++ $(echo "$@" | sed s/-O3/-O0/)
"""


@pytest.fixture(autouse=True)
def _fresh(monkeypatch, tmp_path):
    """An empty cache, and no library in memory: before the test and after it."""
    monkeypatch.setenv("SPIKINGMOE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SPIKINGMOE_KERNELS", raising=False)
    build.load_library.cache_clear()
    yield
    monkeypatch.undo()
    build.load_library.cache_clear()


def fake_compiler(monkeypatch, tmp_path, extra="", script=HASTY):
    path = tmp_path / "fake-g++"
    path.write_text(script.format(extra=extra))
    path.chmod(0o755)
    monkeypatch.setenv("CXX", str(path))
    return path


def runs(compiler):
    """How often it compiled: all runs but those that ask for its version."""
    return len(compiler.with_name(compiler.name + ".log").read_text().split())


def train(seed=0):
    """Spikes and gradients of a training step, and the warnings heard on the way (of three calls)."""
    torch.manual_seed(seed)
    layer, x = LinearNorm(6, 5), torch.randn(4, 30, 6, generator=torch.Generator().manual_seed(1))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        for _ in range(3):
            layer.zero_grad()
            spikes = layer.fire(x, LIF())
            (spikes * x[..., :5]).sum().backward()
    gradients = {name: p.grad for name, p in layer.named_parameters()}
    return spikes.detach(), gradients, [str(w.message) for w in heard]


def assert_trains_in_the_plain_form():
    """The spikes of the plain modules; and what was said."""
    spikes, gradients, heard = train()
    assert build.load_library() is None
    torch.manual_seed(0)
    layer = LinearNorm(6, 5)
    x = torch.randn(4, 30, 6, generator=torch.Generator().manual_seed(1))
    hooked = LIF()
    hooked.register_forward_hook(lambda *_: None)
    for _ in range(3):
        expected = layer.fire(x, hooked)
    assert torch.equal(spikes, expected)
    assert 0.02 < spikes.mean() < 0.9
    assert all(g.isfinite().all() and g.any() for g in gradients.values())
    return heard


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("PATH", "", "no C++ compiler: g++, clang++ or c++ is not on the PATH"),
        ("CXX", "nonexistent", "no C++ compiler: nonexistent is not on the PATH"),
    ],
)
def test_without_a_compiler_it_says_so_once_and_trains(monkeypatch, variable, value, reason):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv(variable, value)
    heard = assert_trains_in_the_plain_form()
    assert len(heard) == 1
    assert reason in heard[0]
    assert "Install g++ (or set CXX), or SPIKINGMOE_KERNELS=off" in heard[0]


FAILING = """#!/bin/sh
case "$*" in *--version*) echo fake 1.0; exit 0;; esac
echo "internal error: out of ideas" >&2; exit 1
"""


@pytest.mark.parametrize("script", [FAILING, "#!/bin/sh\nexit 3\n"], ids=["sources", "version"])
def test_a_failing_compiler_is_named_once(monkeypatch, tmp_path, script):
    path = fake_compiler(monkeypatch, tmp_path, script=script)
    heard = assert_trains_in_the_plain_form()
    assert len(heard) == 1
    assert str(path) in heard[0]
    assert ("out of ideas" in heard[0]) == (script == FAILING)
    assert not list((tmp_path / "cache").rglob("*.so"))
    assert not list((tmp_path / "cache").rglob("build-*"))


def test_switched_off_is_silent(monkeypatch, tmp_path):
    monkeypatch.setenv("SPIKINGMOE_KERNELS", "off")
    monkeypatch.setenv("CXX", "nonexistent")
    assert assert_trains_in_the_plain_form() == []
    assert not (tmp_path / "cache").exists()


def test_a_cache_folder_that_cannot_be_written(monkeypatch, tmp_path):
    """(A file stands where a folder should: that holds for the administrator, too.)"""
    fake_compiler(monkeypatch, tmp_path)
    (tmp_path / "cache").write_text("in the way")
    heard = assert_trains_in_the_plain_form()
    assert len(heard) == 1
    assert f"cache folder {tmp_path / 'cache' / 'kernels'} cannot be written" in heard[0]
    assert "set SPIKINGMOE_CACHE to a folder that can" in heard[0]


@needs_compiler
def test_the_cache(monkeypatch, tmp_path):
    """Compiled once; again where the library is damaged or cannot be loaded; spikes stay the same."""
    compiler = fake_compiler(monkeypatch, tmp_path)
    expected, _, heard = train()
    assert heard == []
    (library,) = (tmp_path / "cache").rglob("*.so")
    assert build.load_library() is not None
    assert runs(compiler) == 2  # version, sources

    whole = library.read_bytes()
    damages = {
        "whole": whole,
        "half": whole[: len(whole) // 2],
        "no last page": whole[:-4096],
        "empty": b"",
        "one bit": whole[:9000] + bytes([whole[9000] ^ 1]) + whole[9001:],
    }
    for damage, content in damages.items():
        # Another file, as this process has the old one mapped.
        library.unlink()
        library.write_bytes(content)
        build.load_library.cache_clear()
        found = build._cached(build.cache_folder(), library.name.rsplit("-", 1)[0])
        assert (found is not None) == (damage == "whole"), damage
    build.load_library.cache_clear()
    before = runs(compiler)
    spikes, _, heard = train()
    assert heard == []
    assert torch.equal(spikes, expected)
    assert runs(compiler) == before + 2
    assert library.read_bytes() == whole
    assert list((tmp_path / "cache").rglob("build-*")) == []


@needs_compiler
def test_an_intact_library_that_does_not_load_is_compiled_again(monkeypatch, tmp_path):
    """Made on another system: its content is what its name says, and the linker refuses it."""
    compiler = fake_compiler(monkeypatch, tmp_path)
    build.cache_folder().mkdir(parents=True)
    name = f"cpu-{build._digest([str(compiler)])}"
    foreign = tmp_path / "foreign.so"
    foreign.write_bytes(b"not an ELF file")
    foreign.rename(build.cache_folder() / build._file_name(name, foreign))
    _, _, heard = train()
    assert heard == []
    assert build.load_library() is not None
    (library,) = (tmp_path / "cache").rglob("*.so")
    assert len(library.read_bytes()) > 10000


@needs_compiler
def test_a_compiler_without_openmp(monkeypatch, tmp_path):
    """As Apple's clang: one thread, said when it is compiled, and the same spikes."""
    refuse = 'case "$*" in *-fopenmp*) echo unsupported option >&2; exit 1;; esac'
    compiler = fake_compiler(monkeypatch, tmp_path, refuse)
    spikes, _, heard = train()
    assert len(heard) == 1
    assert heard[0] == f"{compiler} has no OpenMP: fused CPU kernels run on one thread"
    assert build.load_library() is not None
    build.load_library.cache_clear()
    again, _, heard = train()
    (library,) = build.cache_folder().glob("*.so")
    assert library.name.startswith(build.SERIAL)
    assert len(heard) == 1  # found in the cache, and said again
    assert heard[0].endswith(f"on one thread; with OpenMP installed, remove {library}")
    assert torch.equal(spikes, again)
    monkeypatch.setenv("SPIKINGMOE_KERNELS", "off")
    build.load_library.cache_clear()
    plain, _, _ = train()
    assert torch.equal(spikes, plain)


ALONE = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("build", sys.argv[1])
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)
library = build.load_library()
print(library.spikingmoe_lif_forward is not None, "torch" in sys.modules)
"""


@needs_compiler
def test_two_processes_compile_at_once(monkeypatch, tmp_path):
    compiler = fake_compiler(monkeypatch, tmp_path, "sleep 1")
    command = [sys.executable, "-W", "error", "-c", ALONE, build.__file__]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert out.split() == ["True", "False"]
    assert runs(compiler) in (3, 4)  # on a very busy machine the second may find the library
    assert len(list((tmp_path / "cache").rglob("*.so"))) == 1
    assert list((tmp_path / "cache").rglob("build-*")) == []


@needs_compiler
def test_source_flags_compiler_and_processor_are_in_the_name(monkeypatch, tmp_path):
    compiler = [COMPILER]
    names = [build._digest(compiler), build._digest([*compiler, "-DX"])]
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-g"))
    names.append(build._digest(compiler))
    monkeypatch.setattr(build, "_processor", lambda: "another one")
    names.append(build._digest(compiler))
    for name in (*build.SOURCES, *build.HEADERS):
        (tmp_path / name).write_bytes((build.HERE / name).read_bytes())
    monkeypatch.setattr(build, "HERE", tmp_path)
    assert build._digest(compiler) == names[-1]  # where the source lies does not matter
    for name in (*build.SOURCES, *build.HEADERS):
        with (tmp_path / name).open("a") as file:
            file.write(" ")
        names.append(build._digest(compiler))
    assert len(set(names)) == len(names)


def test_every_source_is_known():
    """A file that is not in the list is not compiled, or not in the name of the library."""
    known = {*build.SOURCES, *build.HEADERS}
    assert known == {f for f in os.listdir(build.HERE) if f.endswith((".cpp", ".h"))}


@needs_compiler
def test_a_compiler_with_arguments(monkeypatch):
    monkeypatch.setenv("CXX", "g++ -DNOTHING")
    assert build._compiler() == [COMPILER, "-DNOTHING"]
