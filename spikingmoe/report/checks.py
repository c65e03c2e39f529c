"""Is it the same network? And when does the answer come?"""

from __future__ import annotations

from typing import Any

from spikingmoe.report.facts import ReportFacts
from spikingmoe.report.markup import Html, join, table, tag
from spikingmoe.report.pictures import timeline
from spikingmoe.report.wording import count, look, mapping, number, percent, plain


def verification_section(facts: ReportFacts) -> Html | None:
    """Every pair that was compared; None if none was."""
    verify = mapping(facts.metrics, "verify")
    pairs = verify.get("pairs")
    parts: list[Html] = []
    if isinstance(pairs, list | tuple) and pairs:
        header = ["pair", "arithmetic", "images", "compared", "differ", "predictions differ",
                  "largest graded difference", "first divergence"]  # fmt: skip
        parts.append(table(header, [_pair(pair) for pair in pairs]))
    elif any(mapping(verify, key) for key in ("float", "fixed")):
        rows = [(key, *(count(look(verify, key, k)) for k in ("samples", "compared", "differing")))
                for key in ("float", "fixed") if mapping(verify, key)]  # fmt: skip
        parts.append(table(["arithmetic", "images", "compared", "differ"], rows))
    if parts:
        words = (
            "Compared: the spikes of all populations that both sides record, at every image and time "
            "step, the logits, and in fixed point every graded message. Torch only sums the residual "
            "stream, and its comparators are worked out from its scores. Sums in floating point "
            "differ between backends in their last bits; the largest such difference stands beside it."
        )
        parts.insert(0, tag("p", words))
    if single := mapping(verify, "float32"):
        parts.append(tag("p", tag("b", "float32 torch beside it: "), _float32(single)))
    return join(parts) if parts else None


def _pair(pair: object) -> tuple[object, ...]:
    differing = number(look(pair, "differing"))
    counted = count(look(pair, "differing"))
    right = differing == 0 and number(look(pair, "compared")) not in (None, 0.0)
    graded = number(look(pair, "graded_max_difference"))
    return (
        f"{plain(look(pair, 'left'))} / {plain(look(pair, 'right'))}",
        plain(look(pair, "arithmetic")),
        count(look(pair, "samples")),
        count(look(pair, "compared")),
        tag("span", counted, class_="right" if right else "wrong"),
        count(look(pair, "predictions_differ")),
        "-" if graded is None else f"{graded:.2g}",
        _first(look(pair, "first")),
    )


def _first(first: object) -> str:
    if not mapping(first):
        return "none"
    values = f", {plain(look(first, 'left'))} against {plain(look(first, 'right'))}"
    return (
        f"{plain(look(first, 'population'))}, image {plain(look(first, 'sample'))}, "
        f"step {plain(look(first, 'step'))}, neuron ({plain(look(first, 'index'))})"
        + (values if look(first, "left") is not None else "")
    )


def _float32(single: dict[str, Any]) -> str:
    diverged, samples = count(look(single, "images_diverged")), count(look(single, "samples"))
    text = f"{diverged} of {samples} images diverge"
    if number(look(single, "share")) is not None:
        text += f" ({percent(look(single, 'share'))})"
    margin = number(look(single, "largest_margin"))
    if margin is not None:
        text += (
            f"; where they begin to, the membrane was within {margin:.2g} of the threshold. "
            "After a first difference spikes cascade"
        )
    return text + "."


def latency_section(facts: ReportFacts) -> Html | None:
    """Depth, window and throughput in hardware steps; None if neither metrics nor traces tell."""
    recorded = mapping(facts.metrics, "latency_steps")
    depth, steps = number(recorded.get("depth")), number(recorded.get("time_steps"))
    if depth is None and facts.depth:
        depth = float(max(facts.depth.values()))
    if steps is None and facts.spikes:
        steps = float(next(iter(facts.spikes.values())).shape[1])
    if depth is None or steps is None or steps < 1 or depth < 0:
        return None
    first = number(recorded.get("first_sample"))
    every = number(recorded.get("every"))
    first, every = (depth + steps if first is None else first), (steps if every is None else every)
    rows = [
        ("depth of the network", f"{count(depth)} steps"),
        ("window of one image, T", f"{count(steps)} steps"),
        ("one image alone, depth + T", f"{count(first)} steps"),
        ("throughput", f"one image every {count(every)} steps, however deep the network"),
    ]
    words = (
        "Hardware steps, not seconds: what a step takes depends on the chip and its slowest core. "
        "Images follow each other through the network without a gap: full blocks mark when an "
        "image enters and when its answer is read out."
    )
    drawn = depth <= 5000 and steps <= 5000
    picture = tag("div", timeline(round(depth), round(steps)), class_="scroll") if drawn else None
    return join([table(["", "hardware steps"], rows), picture, tag("p", words, class_="note")])
