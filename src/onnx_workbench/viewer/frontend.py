"""The installed netron wheel -> one self-contained HTML page.

Netron's front-end is a dozen ES modules. They are read from the wheel at run time, wrapped into one
inline script with ``modules.js``, ``netron.js`` and ``frame.js``, and put into netron's own
``index.html``. The page's Content-Security-Policy forbids every connection, so neither netron nor a
hostile model can contact a host.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import re
from functools import lru_cache
from pathlib import Path

import anywidget
import onnx
import traitlets

from ..proto import walk
from .model import compressed

MODULES = (
    *("base", "text", "json", "xml", "protobuf", "zip", "tar", "flatbuffers", "grapher", "dagre"),
    *("worker", "onnx-proto", "onnx-schema", "onnx", "browser", "view"),
)

PRIVATE = (
    *("_view", "_table", "_selection", "_scrollLeft", "_scrollTop", "_sidebar", "_stack"),
    *("_update", "_menu", "_zoom", "_updatePath"),
)
"""Private names of netron that ``netron.js`` uses."""

_HERE = Path(__file__).parent


class UnfitError(Exception):
    """The installed netron cannot be shown in a cell; the message is one sentence."""


def assemble(folder: Path) -> str:
    """The page that shows one model, from the folder of a netron package: about 1 MB.

    Raises:
        UnfitError: its files differ from those of netron 9.
    """
    html = re.sub(r"<link [^>]*>", "", _read(folder, "index.html"))
    css = _read(folder, "grapher.css").replace("</", "<\\/")
    modules = [_module(folder, name) for name in MODULES]
    for name in PRIVATE:
        if not re.search(rf"\.{name}\b", "\n".join(modules)):
            raise UnfitError(f"its modules have no {name}")
    parts = [_read(_HERE, "modules.js"), *modules]
    parts += [_read(_HERE, "netron.js"), _read(_HERE, "frame.js")]
    script = re.sub(r"<(?=/script|script|!--)", r"\\x3C", "\n".join(parts), flags=re.IGNORECASE)
    html = _once(html, r'<meta http-equiv="Content-Security-Policy"[^>]*>', "")
    html = _once(html, r'<script [^>]*src="index\.js"[^>]*></script>', "")
    html = _once(html, r"<head>", f"<head>{_policy(script)}")
    styles = f'<style id="grapher">{css}</style><style>{_read(_HERE, "frame.css")}</style>'
    html = _once(html, r"</head>", f"{styles}</head>")
    return _once(html, r"</body>", f"<script>{script}</script></body>")


class FrontendWidget(anywidget.AnyWidget):
    """Netron's front-end as one widget, shared by all views of a kernel.

    A notebook's page gets it once, and a notebook saved with its widgets contains it once.
    ``packed`` is the compressed page of :func:`assemble`.
    """

    _esm = "export default {}"  # shows nothing: the views get it from the widget manager
    packed = traitlets.Bytes().tag(sync=True)


def shared() -> FrontendWidget:
    """The widget of this kernel. It stays open when a view closes, since others may use it.

    Raises:
        UnfitError: netron is missing, or its files differ from those of netron 9.
    """
    folder = installed()
    if _made(folder).comm is None:  # after Widget.close_all()
        _made.cache_clear()
    return _made(folder)


@lru_cache(maxsize=1)
def _made(folder: Path) -> FrontendWidget:
    return FrontendWidget(packed=compressed(assemble(folder).encode()))


def _policy(script: str) -> str:
    """Let only this script run, and forbid requests to any host."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rules = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data:; worker-src data:; form-action 'none'; base-uri 'none'"
    )
    return f'<meta http-equiv="Content-Security-Policy" content="{rules}">'


def operators(model: onnx.ModelProto) -> str:
    """Netron's manual for the operators of a model, as JSON; the whole manual has 5.6 MB.

    Raises:
        UnfitError: the manual is missing or not a list of named entries.
    """
    return _manual(installed(), frozenset(ref.node.op_type for ref in walk(model)))


@lru_cache(maxsize=4)  # reading it takes most of the time for a small graph
def _manual(folder: Path, used: frozenset[str]) -> str:
    try:
        entries = json.loads(_read(folder, "onnx-metadata.json"))
        return json.dumps([entry for entry in entries if entry["name"] in used])
    except (ValueError, TypeError, KeyError) as error:
        raise UnfitError("onnx-metadata.json is no list of operators") from error


def installed() -> Path:
    """The folder of the netron package.

    Raises:
        UnfitError: there is none.
    """
    spec = importlib.util.find_spec("netron")
    if spec is None or not spec.origin:
        raise UnfitError("Netron is not installed: pip install netron")
    return Path(spec.origin).parent


def _module(folder: Path, name: str) -> str:
    """One ES module as a function that fills its ``exports``."""
    code = _read(folder, f"{name}.js")
    code = re.sub(
        r"^import \* as (\w+) from '([^']+)';$", r"const \1 = modules.load('\2');", code, flags=re.M
    )
    code = re.sub(r"(?<![\w.$])import\((?=['\"`])", "modules.import(", code)
    code = re.sub(r"^export const (\w+) = ", r"const \1 = exports.\1 = ", code, flags=re.M)
    code = re.sub(
        r"^export const (\{[^}]*\}) = (.*);$",
        r"const \1 = \2; Object.assign(exports, \1);",
        code,
        flags=re.M,
    )
    if left := re.search(r"^(?:import|export)\b.*", code, flags=re.M):
        raise UnfitError(f"{name}.js has an unexpected line: {left[0][:60]}")
    return f'modules.define("{name}", (exports) => {{\n"use strict";\n{code}\n}});'


def _read(folder: Path, name: str) -> str:
    try:
        return (folder / name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UnfitError(f"{name} cannot be read") from error


def _once(html: str, pattern: str, new: str) -> str:
    html, count = re.subn(pattern, lambda _: new, html, count=1)
    if not count:
        raise UnfitError(f"index.html does not match {pattern}")
    return html
