"""``view``: Netron in the cell, without a server, a port or a request to any host."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .. import calls
from ..stack import needs
from .model import read

if TYPE_CHECKING:
    from .netron import Netron

__all__ = ["view"]


def view(
    model: Any,
    *,
    height: int = 640,
    folded: bool = False,
    weights: bool = False,
    source: str | os.PathLike[str] | None = None,
) -> Netron:
    """Show a model in Netron. The page gets the graph; large weights stay in the kernel.

    Args:
        model: an Artifact, the path of an ``.onnx`` file, its bytes, an ``onnx.ModelProto``, an
            ``onnx_ir.Model`` or a ``torch.onnx.ONNXProgram``. It is never changed; external data is
            opened only for ``weights``.
        height: the most pixels of the frame.
        folded: open with one box for each module. A graph of more than a thousand nodes always
            does.
        weights: send the page the values of large weights, too, up to 256 MB: Netron shows them in
            its sidebar, and ``.save()`` includes them.
        source: a folder with the model's ``.py`` files. The function around a quoted line is shown
            if this process exported the model; otherwise it is searched in the folder of the model,
            the working folder and this one, except hidden folders.

    Returns:
        A widget. Without a live page (GitHub, nbconvert, a test) it shows a text and a picture;
        ``.svg()`` returns the picture.

    Raises:
        InputError: ``model`` is none of these, or ``height`` is less than 160.
        LoadError: the file cannot be read, is truncated, or is no ONNX model; or, with ``weights``,
            its external data is missing.
        MissingPackageError: anywidget is not installed.

    >>> from onnx import parser
    >>> view(parser.parse_model('<ir_version: 10, opset_import: ["": 20]> '
    ...                         'half (float[2] x) => (float[2] y) { y = Relu(x) }'))
    half          opset 20, IR 10
    input         x  float32[2]
    output        y  float32[2]
    nodes         1: Relu
    initializers  none

    The front-end comes from the installed `netron <https://github.com/lutzroeder/netron>`_.
    """
    height = calls.whole("height", height, least=160)
    with needs("view()", "view"):
        from .netron import Netron

    return Netron(read(model, weights=weights, source=source), height=height, folded=folded)
