"""The scripts inside the page, and the policy that lets these run and nothing else."""

from __future__ import annotations

import base64
import functools
import hashlib
from pathlib import Path

import altair as alt
import vl_convert

from spikingmoe.report.markup import Html, join, tag

DRAW = Path(__file__).with_name("draw.js")


@functools.cache
def library() -> str:
    """Vega, Vega-Lite and vega-embed as one script of about 0.9 MB; they come with vl-convert."""
    version = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    # The stub demands a snippet, which the function itself does not.
    text = vl_convert.javascript_bundle(vl_version=version)  # pyright: ignore[reportCallIssue]
    return text.replace("</script", "<\\/script")


def scripts() -> Html:
    """The two script elements, for the end of the page."""
    return join(tag("script", Html(text)) for text in _texts())


def policy() -> str:
    """Content-Security-Policy: nothing is fetched, and only these very scripts run, without eval."""
    hashes = " ".join(f"'sha256-{_digest(text)}'" for text in _texts())
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {hashes}"


def _texts() -> tuple[str, str]:
    return library(), DRAW.read_text(encoding="utf-8")


@functools.cache
def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
