"""nbval runs the lessons as their script renders them: nobody's progress, no progress bars."""

import atexit
import os
import tempfile
from unittest import mock

import pytest

_HOME = tempfile.TemporaryDirectory()
atexit.register(_HOME.cleanup)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    # A hook, not a fixture: nbval starts a kernel before any fixture of its cells would run.
    rendered = {"TQDM_DISABLE": "1", "ONNX_WORKBENCH_HOME": _HOME.name}
    with mock.patch.dict(os.environ, rendered):
        return (yield)
