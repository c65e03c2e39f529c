"""The documentation site: `make docs`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import nbformat  # noqa: E402
from generated import write_api, write_commands  # noqa: E402

from notebooks.execute import executed, notebooks  # noqa: E402
from spikingmoe import __version__  # noqa: E402

project = "SpikingMoE"
author = "the SpikingMoE contributors"
copyright = "2026, the SpikingMoE contributors"
version = release = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = f"SpikingMoE {version}"
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # `notebooks.execute` runs them, once for tests and site

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
default_role = "code"  # `name` in our docstrings is code


def copy_notebooks() -> None:
    """The notebooks with their outputs, where Sphinx looks for pages."""
    folder = HERE / "notebooks"
    folder.mkdir(exist_ok=True)
    for path in notebooks():
        nbformat.write(executed(path), folder / path.name)


def keep_stars(_app, _what, _name, _thing, _options, lines: list[str]) -> None:
    """(S, T, *shape) is a shape, no emphasis."""
    lines[:] = [re.sub(r"`[^`]*`|\*", lambda m: m[0] if len(m[0]) > 1 else r"\*", x) for x in lines]


def setup(app) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", keep_stars, priority=100)


copy_notebooks()
write_api(HERE / "api")
write_commands(HERE / "commands.md")
