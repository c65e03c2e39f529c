"""What a study measures of one trained model: accuracy, operations and energy at each precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from benchmarks.study.record import FLOAT, Measured, precision
from hardware.energy import EnergyReport, Operation, get_table, price, quantised_energy
from hardware.errors import LoweringError
from hardware.ir.graph import SpikeGraph
from hardware.lowering.ann import count_quantised_layers
from hardware.passes.plan import apply_plan
from spikingmoe.cli.metrics import count_images, energy_of
from spikingmoe.data.image_data import ImageData, Split
from spikingmoe.rounding import WEIGHT_BITS, with_rounded_weights
from spikingmoe.train.checkpoint import Run
from spikingmoe.train.fit import evaluate
from spikingmoe.train.quantised import (
    QuantiseSettings,
    calibrated_plan,
    float_graph,
    program_accuracy,
)


def measure(
    run: Run, data: ImageData, bits: Sequence[int], costs: Sequence[str], images: int
) -> tuple[dict[str, Measured], str | None]:
    """(figures by precision, None), or (accuracy in floating point alone, why it cannot be lowered).

    Spiking networks are priced in fixed point with weights of `bits` (calibrated, not tuned), and in
    floating point under tables for it; the quantised twin with 8-bit weights; the ReLU twin as it is.

    Args:
        images: test images that operations are counted on.
    """
    split = data.test.first(images)
    if run.model_config.activation_bits:
        return {precision(WEIGHT_BITS): _quantised(run, data, costs, split)}, None
    if not run.model_config.is_spiking:
        reports = energy_of(run, split, costs, None)
        return {FLOAT: _measured(evaluated(run, data), reports)}, None
    try:
        graph = float_graph(run, QuantiseSettings())
    except LoweringError as refusal:
        return {FLOAT: _measured(evaluated(run, data), {})}, str(refusal)
    found = {FLOAT: _measured(evaluated(run, data), energy_of(run, split, costs, None))}
    for each in bits:
        plan = calibrated_plan(graph, data, QuantiseSettings(weight_bits=each))
        fixed = apply_plan(graph, plan)
        accuracy = {
            "validation": program_accuracy(fixed, data.validation),
            "test": program_accuracy(fixed, data.test),
        }
        found[precision(each)] = _measured(accuracy, _fixed_reports(fixed, split, costs))
    return found, None


def evaluated(run: Run, data: ImageData) -> dict[str, float]:
    """Accuracy in floating point on the held-out and on the test images."""
    steps = run.model_config.time_steps
    return {
        "validation": evaluate(run.model, data.validation.in_steps(steps))[0],
        "test": evaluate(run.model, data.test.in_steps(steps))[0],
    }


def _quantised(run: Run, data: ImageData, costs: Sequence[str], split: Split) -> Measured:
    rounded = replace(run, model=with_rounded_weights(run.model))
    layers = count_quantised_layers(rounded.model, split.in_steps(1).images)
    tables = [get_table(name) for name in costs]
    reports = {
        t.name: quantised_energy(layers, t, samples=len(split))
        for t in tables
        if t.quantised is not None
    }
    first = next(layer.macs for layer in layers if layer.name.startswith("stem.convs.0"))
    total = sum(layer.macs for layer in layers)
    accuracy = evaluated(rounded, data)
    return Measured(
        **accuracy,
        synops=total,
        energy_pj=_bands(reports),
        first_layer_macs=first,
    )


def _fixed_reports(
    graph: SpikeGraph, split: Split, costs: Sequence[str]
) -> dict[str, EnergyReport]:
    tables = [get_table(name) for name in costs]
    counts = {chip: count_images(graph, split, chip) for chip in {t.chip for t in tables}}
    return {table.name: price(counts[table.chip], table) for table in tables}


def _measured(accuracy: dict[str, float], reports: Mapping[str, EnergyReport]) -> Measured:
    if not reports:
        return Measured(**accuracy)
    counts = next(iter(reports.values())).counts_per_sample
    spiking = Operation.ACCUMULATE in counts
    return Measured(
        **accuracy,
        synops=next(iter(reports.values())).synops_per_sample,
        accumulates=counts[Operation.ACCUMULATE] if spiking else None,
        energy_pj=_bands(reports),
        event_pj={name: event_energy(r) for name, r in reports.items()} if spiking else {},
    )


def _bands(reports: Mapping[str, EnergyReport]) -> dict[str, tuple[float, float, float]]:
    bands = {name: report.energy_pj_per_sample for name, report in reports.items()}
    return {name: (b.value, b.low, b.high) for name, b in bands.items()}


#: In proportion to spikes.
BY_SPIKE = (
    Operation.ACCUMULATE,
    Operation.ACCUMULATE_DENSE,
    Operation.ACCUMULATE_SPARSE,
    Operation.ACCUMULATE_CONVOLUTION,
    Operation.SPIKE,
    Operation.NEURON_SPIKE,
    Operation.CORE_MESSAGE,
    Operation.HOP_EAST_WEST,
    Operation.HOP_NORTH_SOUTH,
)
#: Made for graded messages too: the accumulates' share of them is.
BY_SYNOP = (Operation.WEIGHT_READ, Operation.EVENT_UPDATE)


def event_energy(report: EnergyReport) -> float:
    """Picojoules per image that would double if every neuron spiked twice as often.

    The rest stays: graded messages of image and relays, neuron updates.
    """
    spent = {name: o.energy_pj_per_sample.value for name, o in report.by_operation.items()}
    counts = report.counts_per_sample
    share = counts[Operation.ACCUMULATE] / max(1.0, report.synops_per_sample)
    return sum(spent.get(o, 0.0) for o in BY_SPIKE) + share * sum(
        spent.get(o, 0.0) for o in BY_SYNOP
    )
