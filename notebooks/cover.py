"""The picture on top of the README, from a real run: ``python notebooks/cover.py``.

One line of the digit reader is followed to the kernel that ONNX Runtime runs for it.
"""

import tempfile
from pathlib import Path

import onnx_workbench as ow
from onnx_workbench import files

LINE = "edges = torch.relu(self.norm(self.edges(images)))"

if __name__ == "__main__":
    digits = ow.lessons.digits()
    with tempfile.TemporaryDirectory() as folder:
        onnx = ow.export(digits.model, digits.images[:64], Path(folder, "digits.onnx"))
        lineage = ow.trace(onnx, digits.images[:64], seconds=2.0)
        (line,) = (line for line in lineage.lines if line.text == LINE)
        picture = lineage.svg(line, times=True)
    print(files.write(Path(__file__).with_suffix(".svg"), picture).name, "written")
