"""The interactive plots of the page: Vega-Lite, written with Altair, drawn by scripts inside the page."""

from spikingmoe.report.plots.accuracy import accuracy_plot
from spikingmoe.report.plots.activity import activity_plot
from spikingmoe.report.plots.energy import energy_plot
from spikingmoe.report.plots.mapping import mapping_plot
from spikingmoe.report.plots.pareto import pareto_plot
from spikingmoe.report.plots.router_map import router_map_plot
from spikingmoe.report.plots.specialisation import specialisation_plot

__all__ = [
    "accuracy_plot",
    "activity_plot",
    "energy_plot",
    "mapping_plot",
    "pareto_plot",
    "router_map_plot",
    "specialisation_plot",
]
