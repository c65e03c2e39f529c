"""The report of one run: a self-contained page, and one picture."""

from spikingmoe.report.facts import ReportFacts
from spikingmoe.report.overview import overview_png
from spikingmoe.report.page import build_page, compare_page

__all__ = ["ReportFacts", "build_page", "compare_page", "overview_png"]
