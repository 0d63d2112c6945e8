"""One small model and its file, shared by the tests of the doors."""

import pytest
import torch
from torch import nn

import onnx_workbench as ow


class Reader(nn.Module):
    """A convolution, a head, and one line for each."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(4 * 36, 10)

    def forward(self, images):
        edges = torch.relu(self.conv(images))
        return self.head(edges.flatten(1))


class Table(nn.Module):
    """A table of 16 rows meets an input whose length should vary."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.ones(16, 8))

    def forward(self, words):
        return words + self.table


@pytest.fixture(scope="session")
def model():
    torch.manual_seed(0)
    return Reader().eval()


@pytest.fixture(scope="session")
def images():
    return torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def table():
    return Table().eval()


@pytest.fixture(scope="session")
def onnx(model, images, tmp_path_factory):
    path = tmp_path_factory.mktemp("doors") / "reader.onnx"
    return ow.export(model, images, path, dynamic_shapes={"images": {0: "batch"}})


@pytest.fixture(scope="session")
def stack():
    return ow.check()
