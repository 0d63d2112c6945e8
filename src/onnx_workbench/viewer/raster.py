"""An SVG picture as a PNG: in a notebook that is not trusted, JupyterLab shows nothing else."""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path

from .drawing import size_of

SCALE = 1.5
"""Pixels of the PNG for each of the picture: sharp enough on most screens, and small."""

_LARGE = 400_000
"""Pixels of a picture from which it is not enlarged: a view should not wait for its PNG."""

_COLORS = 64
_FONTS = "DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSansMono-Bold"


def png(svg: str) -> bytes | None:
    """The picture as a PNG file; None without matplotlib, whose fonts give the same picture on
    every machine.

    >>> png('<svg xmlns="http://www.w3.org/2000/svg" width="8" height="4" viewBox="0 0 2 1"/>')[1:4]
    b'PNG'
    """
    matplotlib = find_spec("matplotlib")
    if not (matplotlib and matplotlib.origin):
        return None
    import resvg_py
    from PIL import Image

    wide, high = size_of(svg)
    fonts = Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf"
    drawn = resvg_py.svg_to_bytes(
        svg,
        zoom=SCALE if wide * high < _LARGE else 1.0,
        background="white",
        skip_system_fonts=True,
        font_files=[str(fonts / f"{name}.ttf") for name in _FONTS],
        sans_serif_family="DejaVu Sans",
        monospace_family="DejaVu Sans Mono",
    )
    image = Image.open(io.BytesIO(drawn)).convert("RGB")
    few = image.quantize(_COLORS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(stream := io.BytesIO(), "PNG", compress_level=6)
    return stream.getvalue()
