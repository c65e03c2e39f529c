"""What `spikingmoe report` makes of the names and files that it is given."""

from pathlib import Path

import pytest

from spikingmoe.cli.report import names, page_file, read_metrics


def test_runs_are_named_by_as_much_of_their_paths_as_tells_them_apart():
    assert names(["runs/a", "runs/b"]) == ["a", "b"]
    assert names(["x/run", "y/run"]) == ["x/run", "y/run"]
    with pytest.raises(ValueError, match="runs/a: is given twice; name each run once"):
        names(["runs/a", "runs/a"])


def test_out_is_a_page_if_it_ends_in_html_and_else_a_folder():
    assert page_file("there/page.html", Path("d")) == Path("there/page.html")
    assert page_file("there", Path("d")) == Path("there/report.html")
    assert page_file(None, Path("d")) == Path("d/report.html")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "is damaged"),
        (b"\xff\xfe", "is damaged"),
        (b"[" * 100_000, "is damaged"),
        (b"[1]", "holds list, not an object"),
    ],
)
def test_damaged_metrics_are_named_with_the_command_that_writes_them(content, words, tmp_path):
    path = tmp_path / "metrics.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"metrics.json: {words}.*run `spikingmoe energy` again"):
        read_metrics(path, "energy")
