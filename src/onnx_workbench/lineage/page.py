"""The floors as one HTML page, with the widget's front-end and no kernel."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..viewer import saved, still

SCRIPT = f"{still.SCRIPT}\n{(Path(__file__).parent / 'floors.js').read_text('utf-8')}"

_STYLE = """
  body { margin: 0; padding: 12px; box-sizing: border-box; height: 100vh; background: #fff; }
  main { height: 100%; }
  main .ow-floors { min-height: 100%; height: 100%; }
  main .body { height: auto !important; }
  @media (max-width: 640px) { main .ow-floors { height: auto; } }
  @media (prefers-color-scheme: dark) { body { background: #0d1117; color-scheme: dark; } }"""

_RENDER = 'render({ model, el: document.body.appendChild(document.createElement("main")) });'


def document(title: str, sheet: Mapping[str, Any], chosen: Sequence[int] = ()) -> str:
    """One HTML page with the live widget; it needs no kernel and sends no request."""
    return saved.offline(title, _STYLE, f"{script(sheet, chosen)}{_RENDER}")


def script(sheet: Mapping[str, Any], chosen: Sequence[int] = ()) -> str:
    """JavaScript that defines ``render`` and its ``model``, for a page without a kernel."""
    data = json.dumps({"_sheet": sheet, "chosen": chosen})
    return f"const saved = {data};\n{SCRIPT}\n{saved.MODEL}const model = makeModel(saved);\n"
