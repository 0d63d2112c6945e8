"""nbval runs the lessons as their script renders them: nobody's progress, no progress bars."""

import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def _as_rendered(tmp_path_factory):
    # Kernels inherit these; pytest collects a notebook's cells before its kernel starts.
    os.environ["TQDM_DISABLE"] = "1"
    os.environ["ONNX_WORKBENCH_HOME"] = str(tmp_path_factory.mktemp("home"))
