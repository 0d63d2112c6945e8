"""Which IR version and opset each release of ONNX Runtime loads at most: what RELEASES says.

    python benchmarks/releases.py [1.23.2 ...]    installs each from the package index, one by one

Each release is given files of one node, in a process of its own. Releases before 1.19 need NumPy 1.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import helper

VERSIONS = ("1.17.3", "1.18.1", "1.20.1", "1.21.1", "1.22.1", "1.23.2", "1.24.1", "1.27.0")
TRY = """
import sys, onnxruntime as ort
options = ort.SessionOptions()
options.log_severity_level = 4
most = {}
for file in sys.argv[1:]:
    kind, number = file.rsplit("/", 1)[1].removesuffix(".onnx").split("-")
    try:
        ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        most[kind] = max(most.get(kind, 0), int(number))
    except Exception:
        pass
print(ort.__version__, most)
"""


def files(folder: Path) -> Iterator[str]:
    """One node, in every IR version at an old opset and in every opset at an old IR version."""
    ends = [helper.make_tensor_value_info(name, 1, [1]) for name in "xy"]
    node = helper.make_node("Identity", ["x"], ["y"])
    for kind, ir, opset in [
        *(("ir", ir, 13) for ir in range(7, 16)),
        *(("opset", 8, opset) for opset in range(13, onnx.defs.onnx_opset_version() + 1)),
    ]:
        graph = helper.make_graph([node], "one", ends[:1], ends[1:])
        imports = [helper.make_opsetid("", opset)]
        path = folder / f"{kind}-{ir if kind == 'ir' else opset}.onnx"
        onnx.save(helper.make_model(graph, ir_version=ir, opset_imports=imports), path)
        yield path.as_posix()


def main(versions: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = list(files(Path(folder)))
        for version in versions or VERSIONS:
            home = f"{folder}/{version}"
            old = tuple(map(int, version.split(".")[:2])) < (1, 19)
            numpy = "numpy<2" if old else "numpy"
            wanted = [f"onnxruntime=={version}", numpy]
            subprocess.run(
                [sys.executable, "-m", "pip", "install", "-q", "--target", home, *wanted],
                check=True,
            )
            env = {**os.environ, "PYTHONPATH": home}
            subprocess.run([sys.executable, "-c", TRY, *made], env=env, check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
