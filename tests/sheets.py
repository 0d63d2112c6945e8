"""Sheets made by hand: a small net with a fusion, and nets of any number of rows."""

from __future__ import annotations

import base64
from typing import Any

FLOORS = {
    "source": "Source line",
    "bytecode": "Bytecode",
    "fx": "FX node",
    "decomposed": "Decomposed FX",
    "onnx": "ONNX node",
    "optimized": "Optimized ONNX",
    "kernel": "Kernel",
}
OPEN = {"source", "fx", "onnx", "kernel"}


def sheet(links: list[list[int]], rows: dict[str, list[dict]], **more: Any) -> dict[str, Any]:
    floors = [
        {"name": name, "title": title, "open": name in OPEN, "note": "", "rows": rows[name]}
        for name, title in FLOORS.items()
    ]
    return {
        **{"title": "net.onnx", "floors": floors, "links": links},
        **{"values": {}, "flame": None, "stop": None, **more},
    }


def small() -> dict[str, Any]:
    """Convolution and relu run as one kernel, a constant is folded away, a Transpose is inserted;
    the third line calls a library."""
    names = ("conv2d", "relu", "add", "mul", "matmul", "softmax", "matmul_1", "mean")
    renamed = {"conv2d": "convolution", "matmul": "mm", "matmul_1": "mm_1"}
    operators = ("Conv", "Relu", "Add", "Mul", "MatMul", "Softmax", "MatMul", "ReduceMean")
    onnx = [{"t": f"node_{name}", "m": op} for name, op in zip(names, operators, strict=True)]
    fused = {"t": "fused Conv", "m": "FusedConv"}
    inserted = {"t": "Transpose_0", "m": "Transpose", "x": "inserted by the optimizer"}
    optimized = [{**row} for row in (fused, onnx[3], inserted, *onnx[4:])]
    onnx[2]["x"] = "removed by the optimizer: a constant"
    seconds = (4e-5, 1e-5, 5e-6, 1e-5, 5e-6, 5e-6, 2e-6)
    kernels = [{**row, "s": s} for row, s in zip(optimized, seconds, strict=True)]
    kernels[0]["k"] = "ConvActivationFusion"
    rows = {
        "source": [
            {"t": "net.py, in forward", "m": "", "h": 1},
            {"t": "def forward(self, x):", "m": "11", "h": 1},
            {"t": "    x = torch.relu(self.conv(x))", "m": "12", "s": 4e-5, "b": 8192},
            {"t": "    x = x * (self.scale + 1)", "m": "13", "s": 1e-5, "b": 2048},
            {"t": "    x = self.attention(x)", "m": "14", "s": 2.5e-5, "b": 4096},
            {"t": "torch/nn/modules/activation.py:92", "m": "", "d": 1, "h": 1},
            {"t": "scores = q @ k.T", "m": "95", "d": 1, "s": 1.5e-5},
            {"t": "return softmax(scores) @ v", "m": "96", "d": 1, "s": 1e-5},
            {"t": "    # the end", "m": "15", "h": 1},
            {"t": "    return x.mean()", "m": "16", "s": 2e-6, "b": 4},
        ],
        "bytecode": [{"t": f"LOAD_FAST x{n}", "m": str(2 * n)} for n in range(8)],
        "fx": [{"t": name, "m": ""} for name in names],
        "decomposed": [{"t": renamed.get(name, name), "m": ""} for name in names],
        **{"onnx": onnx, "optimized": optimized, "kernel": kernels},
    }
    links = [
        [2, 0, 0, 0, 0, 0, 0],
        [2, 1, 1, 1, 1, 0, 0],
        [3, 2, 2, 2, 2, -1, -1],
        [3, 3, 3, 3, 3, 1, 1],
        [4, 4, 4, 4, 4, 3, 3],
        [6, 4, 4, 4, 4, 3, 3],
        [4, 5, 5, 5, 5, 4, 4],
        [4, 6, 6, 6, 6, 5, 5],
        [7, 5, 5, 5, 5, 4, 4],
        [7, 6, 6, 6, 6, 5, 5],
        [-1, -1, -1, -1, -1, 2, 2],
        [9, 7, 7, 7, 7, 6, 6],
    ]
    values = {
        "0": value("conv2d", "agrees: 1e-07 of 1e-05"),
        "1": value("relu", "agrees: 2e-07 of 1e-05"),
        "3": value("mul", "✗ differs: 0.003 of 1e-05"),
    }
    library = {"name": "activation.py:95", "seconds": 1.5e-5, "row": 6, "children": []}
    call = {"name": "self.attention(x)", "seconds": 2.5e-5, "row": 4, "children": [library]}
    first = {"name": "torch.relu", "seconds": 4e-5, "row": 2, "children": []}
    tree = {"name": "forward", "seconds": 7.7e-5, "row": -1, "children": [first, call]}
    module = {**tree, "name": "Net", "children": [{**call, "name": "attention"}]}
    return sheet(links, rows, values=values, flame={"stack": tree, "module": module})


def value(name: str, agrees: str) -> dict[str, Any]:
    pixels = bytes(min(255, 4 * at) for at in range(64))
    facts = [
        ("value", f"{name}  float32[1, 1, 8, 8]"),
        ("range", "0 to 3.1, mean 0.2"),
        ("vs PyTorch", f"{agrees} allowed"),
    ]
    picture = {"w": 8, "h": 8, "data": base64.b64encode(pixels).decode()}
    more = {"label": f"{name}, 8 by 8", "ends": ["0", "3.1"]}
    return {"facts": facts, "picture": picture | more}


def deep(nodes: int) -> dict[str, Any]:
    """A line for each four nodes; every third line's nodes fold into groups of repeated blocks."""
    lines = nodes // 4
    names = [f"{('conv2d', 'batch_norm', 'relu', 'add')[n % 4]}_{n}" for n in range(nodes)]
    groups = [{"g": n % 4} if n // 4 % 3 == 0 else {} for n in range(nodes)]
    operators = ("Conv", "BatchNormalization", "Relu", "Add")
    source = [
        {
            "t": f"x = self.block{n}(x)",
            "m": str(n + 10),
            "s": 1e-6 * (n % 40 + 1),
            "b": 512 * (n % 7),
        }
        for n in range(lines)
    ]
    nodes_ = [
        {"t": f"node_{name}", "m": operators[n % 4], **groups[n]} for n, name in enumerate(names)
    ]
    fx = [{"t": name, **groups[n]} for n, name in enumerate(names)]
    rows = {"source": source, "fx": fx, "decomposed": fx, "onnx": nodes_}
    rows["bytecode"] = [{"t": f"CALL {n}", "m": str(n)} for n in range(nodes)]
    rows["optimized"] = [
        {"t": f"fused {n}", "m": "FusedConv", **({"g": 0} if n % 3 == 0 else {})}
        for n in range(lines)
    ]
    rows["kernel"] = [{**row, "s": 1e-6 * (n % 40 + 1)} for n, row in enumerate(rows["optimized"])]
    links = [[n // 4, n, n, n, n, n // 4, n // 4] for n in range(nodes)]
    return sheet(links, rows, title="deep.onnx")
