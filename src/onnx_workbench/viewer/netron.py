"""Netron as a widget: the kernel's side of ``bridge.js``."""

from __future__ import annotations

import gzip
import zlib
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from . import frontend
from .drawing import draw
from .model import Model
from .summary import summary


class Netron(anywidget.AnyWidget):
    """A graph in a notebook cell: Netron where a page lives, a picture and a text where none does.

    Traits:
        selected: name of the node that was activated last in the page, ``""`` before the first.
            Watch it with ``view.observe(function, "selected")``.
        height: pixels of the frame; a smaller graph gets a smaller frame.
    """

    _esm = Path(__file__).parent / "bridge.js"
    _picture = traitlets.Unicode().tag(sync=True)
    _summary = traitlets.Unicode().tag(sync=True)
    selected = traitlets.Unicode("").tag(sync=True)
    height = traitlets.Int(640, min=160).tag(sync=True)

    def __init__(self, model: Model, **traits: Any) -> None:
        self._model = model
        self._screen: str | None = None
        super().__init__(_picture=draw(model), _summary=summary(model), **traits)
        self.on_msg(self._answer)

    def svg(self) -> str:
        """The graph as an SVG document.

        As Netron drew it, once a page has shown it (in a later cell than the one that shows the
        view, and up to 1,000 nodes); until then, and where no page lives, the static picture.
        """
        return self._screen or self._picture

    def __repr__(self) -> str:
        return self._summary

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        data, metadata = super()._repr_mimebundle_(**kwargs) or ({}, {})
        return {**data, "text/plain": self._summary, "image/svg+xml": self._picture}, metadata

    def _answer(self, _: object, message: dict[str, Any], __: object) -> None:
        """One message of the page: a question, or the picture that Netron drew."""
        if isinstance(picture := message.get("picture"), str):
            self._screen = picture
        if message.get("ask") not in ("model", "page"):
            return
        try:
            content, buffers = self._parts if message["ask"] == "model" else ({}, [_page()])
        except frontend.UnfitError as error:
            content, buffers = {"why": _sentence(error)}, []
        self.send({**content, "id": message.get("id")}, buffers)

    @cached_property
    def _parts(self) -> tuple[dict[str, str], list[bytes]]:
        """What the page needs of this model, compressed: its bytes and its operators' manual."""
        proto = self._model.proto
        content = {"name": self._model.name, "page": f"{zlib.crc32(_page()):08x}"}
        parts = [proto.SerializeToString(), frontend.operators(proto).encode()]
        return content, [_packed(part) for part in parts]


@lru_cache(maxsize=1)
def _page() -> bytes:
    return _packed(frontend.page().encode())


def _packed(data: bytes) -> bytes:
    return gzip.compress(data, compresslevel=6, mtime=0)


def _sentence(error: frontend.UnfitError) -> str:
    return (
        f"The installed netron cannot be shown in a cell ({error}), so this is a static picture; "
        "pip install 'netron>=9,<10' mends it."
    )
