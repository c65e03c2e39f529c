"""`spikingmoe presets`."""

from __future__ import annotations

import json

from jsonargparse import Namespace

from spikingmoe.cli.console import say, show_table
from spikingmoe.config import PRESETS, ModelConfig, override
from spikingmoe.config.presets import MADE_FOR
from spikingmoe.sizes import count_parameters, estimate_synops


def run(args: Namespace) -> int:
    """List the presets with parameters and estimated operations."""
    configs = {
        name: override(config, num_classes=args.classes) if args.classes is not None else config
        for name, config in PRESETS.items()
    }
    rows = {name: describe(config, MADE_FOR[name], args.rate) for name, config in configs.items()}
    if args.json:
        print(json.dumps({"kind": "estimate", "rate": args.rate, "presets": rows}, indent=2))
        return 0
    show_table(
        f"presets (operations per image: estimates at {args.rate:g} spikes per neuron and step)",
        [
            "preset",
            "input",
            "T",
            "blocks",
            "classes",
            "E/K",
            "parameters",
            "active",
            "synops",
            "image MACs",
            "relay MACs",
        ],
        [_cells(name, row) for name, row in rows.items()],
    )
    say("parameters and operations in millions; E/K: experts per mixture, and chosen per token")
    say("active: parameters that one token uses, all but those of the experts not chosen")
    say(
        "synops: accumulates that spikes trigger; MACs: multiply-accumulates, in the first layer of"
    )
    say("graded pixels, and of the graded relays that carry residual streams and scores")
    for purpose in dict.fromkeys(MADE_FOR.values()):
        names = [name for name, made_for in MADE_FOR.items() if made_for == purpose]
        say(f"{', '.join(names)}: for {purpose}")
    return 0


def describe(config: ModelConfig, made_for: str, rate: float) -> dict[str, object]:
    """Sizes of one preset, as JSON values."""
    parameters, synops = count_parameters(config), estimate_synops(config, rate)
    return {
        "made_for": made_for,
        "input": [config.input_channels, config.image_size, config.image_size],
        "time_steps": config.time_steps,
        "blocks": list(config.stage_depths),
        "classes": config.num_classes,
        "experts": config.num_experts,
        "top_k": config.top_k,
        "parameters": parameters.total,
        "active_parameters": parameters.active,
        "estimated_synops": synops.synops,
        "estimated_first_layer_macs": synops.first_layer_macs,
        "estimated_relay_macs": synops.relay_macs,
    }


def _cells(name: str, row: dict) -> list[str]:
    return [
        name,
        "x".join(map(str, row["input"])),
        str(row["time_steps"]),
        "+".join(map(str, row["blocks"])),
        str(row["classes"]),
        f"{row['experts']}/{row['top_k']}",
        *(
            _millions(row[key])
            for key in (
                "parameters",
                "active_parameters",
                "estimated_synops",
                "estimated_first_layer_macs",
                "estimated_relay_macs",
            )
        ),
    ]


def _millions(value: float) -> str:
    return f"{value / 1e6:,.2f}" if value < 1e8 else f"{value / 1e6:,.0f}"
