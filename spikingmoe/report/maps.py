"""The router's choices over the image, to be looked at one by one."""

from __future__ import annotations

from spikingmoe.report.facts import ReportFacts
from spikingmoe.report.markup import Html, tag
from spikingmoe.report.plots import router_map_plot


def maps_section(facts: ReportFacts) -> Html | None:
    """A chooser of image, router and step; a cell names its token and expert."""
    if not facts.routers:
        return tag("p", "This model is dense: it has no router.", class_="missing")
    return router_map_plot(facts)
