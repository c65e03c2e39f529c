"""Run the notebooks of this folder from top to bottom; copies with their outputs go to build/notebooks.

A copy is made again when its notebook or a module of ours has changed: tests and documentation share them.

    python notebooks/execute.py
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

HERE = Path(__file__).parent
ROOT = HERE.parent
BUILT = ROOT / "build" / "notebooks"
SECONDS = 280  # per cell
MARK = "spikingmoe_source"  # in a copy's metadata: what it was made from


def notebooks() -> list[Path]:
    """The notebooks of this folder, in reading order."""
    return sorted(HERE.glob("*.ipynb"))


def executed(path: Path, folder: Path = BUILT) -> NotebookNode:
    """The notebook with its outputs: the copy in `folder` if it is up to date, else run and kept there.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed; the message shows it.
    """
    kept, source = folder / path.name, fingerprint(path)
    if kept.is_file():
        copy = nbformat.read(kept, as_version=4)
        if copy.metadata.get(MARK) == source:
            return copy
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as place:
        client = NotebookClient(
            notebook,
            timeout=SECONDS,
            startup_timeout=SECONDS,
            kernel_name="python3",
            resources={"metadata": {"path": place}},
        )
        client.execute(env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *_given()])})
    notebook.metadata[MARK] = source
    folder.mkdir(parents=True, exist_ok=True)
    part = kept.with_suffix(f".part{os.getpid()}")
    nbformat.write(notebook, part)
    part.replace(kept)
    return notebook


def fingerprint(path: Path) -> str:
    """Of the notebook and of all modules of ours."""
    digest = hashlib.sha256(path.read_bytes())
    for package in ("spikingmoe", "hardware"):
        for module in sorted((ROOT / package).rglob("*.py")):
            digest.update(module.read_bytes())
    return digest.hexdigest()


def _given() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def main() -> None:
    for path in notebooks():
        print(f"{path.name} ...", flush=True)
        executed(path)
    print(f"with outputs: {BUILT}", file=sys.stderr)


if __name__ == "__main__":
    main()
