"""The static picture of a widget, for a page that has lost it: another kernel, a state not saved.

Such a page shows an error for the widget, and nothing else of the same output. So the picture is an
output of its own, before the widget's; ``still.js`` hides it while the widget is there.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from .drawing import FONT, size_of
from .raster import png

SCRIPT = (Path(__file__).parent / "still.js").read_text("utf-8")

_CAPTION = "Static picture: run the cell."
_CAPTION_WIDTH, _CAPTION_HEIGHT = 190, 22
_NARROW = 700
"""Pixels. JupyterLab cuts an SVG that is wider than its cell, so one above this fills the cell."""

Output = tuple[dict[str, Any], dict[str, Any]]


def show(widget: Any, text: str, svg: str) -> None:
    """Display the picture, and the widget unless it is closed or None."""
    from IPython.display import display

    for data, metadata in outputs(widget, text, svg):
        display(data, metadata=metadata, raw=True)


def outputs(widget: Any, text: str, svg: str) -> list[Output]:
    """The data and the metadata of each output of :func:`show`."""
    shown = [picture(text, captioned(svg))]
    if widget and widget.comm is not None:
        view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
        shown.append(({"application/vnd.jupyter.widget-view+json": view}, {}))
    return shown


def picture(text: str, svg: str) -> Output:
    """The picture as SVG, and as the PNG that a notebook shows if it is not trusted."""
    (wide, high), shown = size_of(svg), svg
    if wide > _NARROW:
        shown = svg.replace(f'width="{wide}" height="{high}"', 'width="100%"', 1)
    data: dict[str, Any] = {"text/plain": text, "image/svg+xml": shown}
    metadata: dict[str, Any] = {}
    if image := png(svg):
        data["image/png"] = base64.b64encode(image).decode()
        metadata["image/png"] = {"width": wide, "height": high}
    return data, metadata


def captioned(svg: str) -> str:
    """The picture above a caption that says how to get the widget."""
    wide, high = size_of(svg)
    whole, tall = max(wide, _CAPTION_WIDTH), high + _CAPTION_HEIGHT
    inner = svg.replace("<svg ", f'<svg x="{(whole - wide) // 2}" ', 1)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="ow-still" role="img" width="{whole}" '
        f'height="{tall}" viewBox="0 0 {whole} {tall}"><rect width="100%" '
        f'height="100%" rx="8" fill="#ffffff"/>{inner}<text x="{whole / 2:.0f}" y="{high + 13}" '
        f'font-family="{FONT}" font-size="11" fill="#57606a" text-anchor="middle">{_CAPTION}</text>'
        "</svg>"
    )
