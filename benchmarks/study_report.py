"""Table, picture and JSON of a study."""

from __future__ import annotations


def report(trials, settings, json_path, plot_path, say) -> None:
    say(f"{len(trials.records())} records")
