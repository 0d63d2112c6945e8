"""Views as one HTML file that opens without a kernel, a server or a network."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

MODEL = (Path(__file__).parent / "model.js").read_text("utf-8")
"""JavaScript that defines ``makeModel``, a widget's model without a kernel."""

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "worker-src data:; form-action 'none'; base-uri 'none'"
)

_STYLE = """
  html, body, main { margin: 0; height: 100%; background: #fff; }
  body { display: flex; flex-wrap: wrap; }
  main { flex: 1 1 min(420px, 100%); min-width: 0; }
  main + main { outline: 1px solid #8888; }
  .ow-view { height: 100%; display: flex; flex-direction: column; }
  .ow-view > .ow-netron { flex: 1; min-height: 0; height: auto !important; resize: none;
    border-width: 1px 0 0; border-radius: 0; }
  .ow-view > .ow-bar { padding: 4px 8px; }
  @media (prefers-color-scheme: dark) {
    html, body, main { background: #1e1e1e; --jp-layout-color1: #1e1e1e;
      --jp-layout-color2: #2d2d2d; --jp-ui-font-color1: #e0e0e0; --jp-border-color2: #444; }
  }"""


def document(title: str, views: Sequence[Mapping[str, Any]], script: str, page: bytes) -> str:
    """One HTML page.

    Each view has ``traits``, what is ``sent`` first, the ``whole`` graph if that one is folded, and
    ``related``, the nodes that a click marks in the other view. ``script`` defines ``render``;
    ``page`` is shown in the frame.
    """
    data = json.dumps({"page": page, "views": views}, default=_coded)
    tail = (Path(__file__).parent / "saved.js").read_text(encoding="utf-8")
    return offline(title, _STYLE, f"const saved = {data};\n{MODEL}\n{script}\n{tail}")


def offline(title: str, style: str, script: str, body: str = "") -> str:
    """One HTML page with the HTML ``body`` and an ES module, which may send no request."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{style}</style></head>"
        f'<body>{body}<script type="module">{_inline(script)}</script></body></html>\n'
    )


def _coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _inline(script: str) -> str:
    """Escape ``<`` so that no text of a model can end the script; in a string it means the same."""
    return re.sub(r"<(?=/script|script|!--)", r"\\u003C", script, flags=re.IGNORECASE)
