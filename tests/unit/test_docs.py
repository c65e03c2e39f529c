"""The Python examples of the documentation run, in order."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples(name: str) -> list[str]:
    return EXAMPLE.findall((DOCS / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize(("name", "count"), [("lowering.md", 4), ("loihi.md", 1)])
def test_the_examples_run(name, count, capsys):
    found, namespace = examples(name), {"__name__": f"docs.{name}"}
    assert len(found) == count
    for number, source in enumerate(found):
        exec(compile(source, f"{name}, example {number}", "exec"), namespace)
    said = capsys.readouterr().out
    expected = {"lowering.md": "cannot lower 'layers.1': reads spikes", "loihi.md": "lava-loihi"}
    assert expected[name] in said
