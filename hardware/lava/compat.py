"""Importing Lava 0.10 on Python 3.11 and later.

Lava declares a dataclass instance as the default of a dataclass field. Python 3.11 refuses such
defaults unless they are hashable, so the dataclasses of modules `lava.*` get `unsafe_hash=True`
while those modules are imported. Lava is archived: nothing will be mended upstream.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

from hardware.errors import BackendError

INSTALL = "pip install --no-deps --ignore-requires-python lava-nc"


@contextmanager
def lava_imports() -> Iterator[None]:
    """Inside this context `import lava...` works; `dataclasses.dataclass` is restored afterwards.

    Raises:
        BackendError: when Lava is not installed, naming the command that installs it.
    """
    require_lava()
    original = dataclasses.dataclass

    def hashable(cls=None, /, **options):
        def decorate(c):
            ours = c.__module__ == "lava" or c.__module__.startswith("lava.")
            return original(c, **({"unsafe_hash": True} if ours else {}), **options)

        return decorate if cls is None else decorate(cls)

    dataclasses.dataclass = hashable
    try:
        yield
    finally:
        dataclasses.dataclass = original


def require_lava() -> None:
    """Raise BackendError unless the package `lava` can be found (it is not imported)."""
    try:
        found = importlib.util.find_spec("lava.magma") is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        raise BackendError(
            f"the Lava backend needs lava-nc, which is not installed; run `{INSTALL}`"
        )
