"""Netron's front-end as one widget, to which every view of a kernel refers."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import anywidget
import traitlets

from . import frontend
from .model import compressed


class FrontendWidget(anywidget.AnyWidget):
    """It travels to a notebook's page once, and a notebook saved with its widgets holds it once.

    ``packed`` is what :func:`frontend.assemble` gives, compressed.
    """

    _esm = "export default {}"  # nothing to show: the views ask the widget manager for it
    packed = traitlets.Bytes().tag(sync=True)


def shared() -> FrontendWidget:
    """The one of this kernel. It stays open when a view closes: others may live.

    Raises:
        UnfitError: netron is missing, or its files are not as they were in netron 9.
    """
    folder = frontend.installed()
    if _made(folder).comm is None:  # after Widget.close_all()
        _made.cache_clear()
    return _made(folder)


@lru_cache(maxsize=1)
def _made(folder: Path) -> FrontendWidget:
    return FrontendWidget(packed=compressed(frontend.assemble(folder).encode()))
