"""Recipes by name: YAML files of this package with a preset, a data set and how to train it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from spikingmoe.config.fields import unknown

FOLDER = Path(__file__).parents[1] / "recipes"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A YAML file of options of `spikingmoe train`.

    Attributes:
        about: its first line, a comment.
    """

    name: str
    path: Path
    about: str


def list_recipes() -> dict[str, Recipe]:
    """All recipes by name."""
    found = {}
    for path in sorted(FOLDER.glob("*.yaml")):
        about = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("#").strip()
        found[path.stem] = Recipe(name=path.stem, path=path, about=about)
    return found


def get_recipe(name: str) -> Recipe:
    """The recipe called `name`; ValueError lists the names and the closest one."""
    recipes = list_recipes()
    if name not in recipes:
        raise ValueError(unknown("recipe", name, recipes))
    return recipes[name]
