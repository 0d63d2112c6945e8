"""Any ONNX model -> Netron in the cell, with no server, no port and no request to any host."""

from __future__ import annotations

import os
from typing import Any

from .. import calls
from .model import read
from .netron import Netron

__all__ = ["Netron", "view"]


def view(
    model: Any,
    *,
    height: int = 640,
    folded: bool = False,
    weights: bool = False,
    source: str | os.PathLike[str] | None = None,
) -> Netron:
    """Netron in the cell. The page gets the graph; large weights stay in the kernel.

    Args:
        model: an Artifact, the path of an ``.onnx`` file, its bytes, an ``onnx.ModelProto``, an
            ``onnx_ir.Model`` or a ``torch.onnx.ONNXProgram``. It is read, never changed; a file
            of external data is opened for ``weights`` alone.
        height: pixels of the frame at most.
        folded: whether a graph of up to a thousand nodes opens with one box for each module, too,
            as a larger one does.
        weights: whether the page gets the values of large weights, too, up to 256 MB: Netron shows
            them in its sidebar. A file that ``.save()`` writes holds them then.
        source: a folder with the model's ``.py`` files. Beside a line that the file quotes, its
            function is shown where this process exported the model, else from the folder of the
            model, the working folder and this one, hidden folders left out.

    Returns:
        A widget. Without a live page (GitHub, nbconvert, a test) it shows as a text and a picture;
        ``.svg()`` gives the picture.

    Raises:
        InputError: ``model`` is none of these, or ``height`` is less than 160.
        LoadError: the file cannot be read, is truncated, or is no ONNX model; or a file of weights
            that were asked for is not there.

    >>> from onnx import parser
    >>> view(parser.parse_model('<ir_version: 10, opset_import: ["": 20]> '
    ...                         'half (float[2] x) => (float[2] y) { y = Relu(x) }'))
    half          opset 20, IR 10
    input         x  float32[2]
    output        y  float32[2]
    nodes         1: Relu
    initializers  none

    The front-end is that of the installed `netron <https://github.com/lutzroeder/netron>`_.
    """
    height = calls.whole("height", height, least=160)
    return Netron(read(model, weights=weights, source=source), height=height, folded=folded)
