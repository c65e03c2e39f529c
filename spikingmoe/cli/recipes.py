"""`spikingmoe recipes`."""

from __future__ import annotations

from jsonargparse import Namespace

from spikingmoe.cli.console import say, show_table
from spikingmoe.config import list_recipes


def run(args: Namespace) -> int:
    """List the recipes with one line each."""
    rows = [[recipe.name, recipe.about] for recipe in list_recipes().values()]
    show_table("recipes", ["recipe", "what it trains"], rows)
    say("spikingmoe train --recipe NAME [--data-dir DIR]; other options win over the recipe's")
    return 0
