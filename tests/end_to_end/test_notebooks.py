"""The notebooks run from top to bottom, and what they say about themselves is so."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from notebooks.execute import executed, notebooks

pytestmark = pytest.mark.slow
NOTEBOOKS = notebooks()


def printed(path: Path) -> str:
    """All that its cells print."""
    notebook = executed(path)
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", []))
    return "".join(output.get("text", "") for output in outputs if output.get("name") == "stdout")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_kept_without_outputs_and_reads_as_prose(path: Path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert notebook.cells[0].source.startswith("# ")
    prose = sum(len(cell.source) for cell in notebook.cells if cell.cell_type == "markdown")
    assert prose > 600
    assert not re.search(r"/(home|root|work|tmp)/", path.read_text())


@pytest.mark.timeout(900)
def test_training_and_reading():
    said = printed(NOTEBOOKS[0])
    accuracy = re.search(r"test accuracy after \d+ epochs: ([\d.]+) % \(n = 359", said)
    assert accuracy is not None
    assert float(accuracy[1]) > 50
    assert "spikes of its hidden neurons there: 0;" in said


@pytest.mark.timeout(900)
def test_from_torch_to_lava():
    said = printed(NOTEBOOKS[1])
    compared = re.findall(r"([\d,]+) spikes compared, (\d+) differ", said)
    assert len(compared) == 3
    assert all(int(count.replace(",", "")) > 1_000_000 for count, _ in compared)
    assert [differ for _, differ in compared] == ["0"] * 3


@pytest.mark.timeout(900)
def test_energy_against_accuracy():
    said = printed(NOTEBOOKS[2])
    for table in ("horowitz45", "loihi1", "lemaire", "yan"):
        row = next(line for line in said.splitlines() if line.startswith(table))
        bands = re.findall(r"([\d.]+) \(([\d.]+) to ([\d.]+)\)", row)
        assert len(bands) == 2
        assert all(float(low) <= float(value) <= float(high) for value, low, high in bands)


@pytest.mark.timeout(900)
def test_bring_your_own():
    said = printed(NOTEBOOKS[3])
    assert "Lava against snnTorch: 336 values compared, 0 differ" in said
    assert len(re.findall(r"compared, 0 differ", said)) == 3
