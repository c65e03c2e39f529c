"""The commands, and the parser of each; torch is not imported here."""

from __future__ import annotations

from spikingmoe.cli.hardware_options import (
    energy_options,
    lower_options,
    map_options,
    nir_options,
    quantise_options,
    simulate_options,
    verify_options,
)
from spikingmoe.cli.reading_options import (
    bundle_options,
    doctor_options,
    evaluate_options,
    inspect_options,
    lesion_options,
    predict_options,
    presets_options,
    recipes_options,
    report_options,
)
from spikingmoe.cli.training_options import (
    demo_options,
    download_options,
    train_options,
)

COMMANDS = {
    "demo": "the whole chain on real images: train, lower, run on Lava, verify, energy, report",
    "download": "bring a published data set into a folder",
    "train": "train a preset on a data set",
    "evaluate": "test accuracy of a trained run",
    "predict": "classify image files with a trained run",
    "lower": "turn a trained run into a program for Lava",
    "quantise": "turn a trained run into a program in integers, calibrated or trained on their grid",
    "simulate": "run a program on a backend",
    "map": "lay a program out on a Loihi chip: cores, limits, placement (estimate)",
    "nir": "turn a program into a NIR file, or any framework's NIR file into a program",
    "verify": "compare torch, the reference and Lava spike by spike",
    "energy": "estimate energy from counted operations, with the twins beside it",
    "report": "write the interactive report page of a run, or of several beside each other",
    "presets": "list the presets with their sizes",
    "recipes": "list the recipes that train can follow",
    "inspect": "read a trained mixture: load, sureness, classes and regions per expert",
    "lesion": "silence experts, heads or the prompt: accuracy per class before and after",
    "bundle": "write a checkpoint that only predicts, with its model card",
    "doctor": "say what this machine can do, what is missing, and the command that mends it",
}

PARSERS = {
    "demo": demo_options,
    "download": download_options,
    "train": train_options,
    "evaluate": evaluate_options,
    "predict": predict_options,
    "lower": lower_options,
    "quantise": quantise_options,
    "simulate": simulate_options,
    "map": map_options,
    "nir": nir_options,
    "verify": verify_options,
    "energy": energy_options,
    "report": report_options,
    "presets": presets_options,
    "recipes": recipes_options,
    "inspect": inspect_options,
    "lesion": lesion_options,
    "bundle": bundle_options,
    "doctor": doctor_options,
}
