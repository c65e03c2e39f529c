"""What benchmarks say of themselves."""

import sys

from benchmarks import harness


def test_the_command_is_told_without_folders(monkeypatch):
    words = [
        "benchmarks/x.py",
        "--data-dir",
        "/home/someone/data/",
        "--json",
        "out.json",
        "--n",
        "3",
    ]
    monkeypatch.setattr(sys, "argv", words)
    assert harness.command() == "python benchmarks/x.py --data-dir data --json out.json --n 3"
