"""Reading a trained mixture, and lesions: what is silenced, and what that does."""

from spikingmoe.analysis.effects import Effect, q_values, wilson_interval
from spikingmoe.analysis.lesion import lesion
from spikingmoe.analysis.measures import Information
from spikingmoe.analysis.reading import LinkReading, MixtureReading, read_mixture
from spikingmoe.analysis.sweep import measure_lesions
from spikingmoe.analysis.targets import Target, choose_targets, list_targets, together

__all__ = [
    "Effect",
    "Information",
    "LinkReading",
    "MixtureReading",
    "Target",
    "choose_targets",
    "lesion",
    "list_targets",
    "measure_lesions",
    "q_values",
    "read_mixture",
    "together",
    "wilson_interval",
]
