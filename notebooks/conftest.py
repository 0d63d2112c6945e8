"""How nbval runs a lesson: whole in one process, in a folder of its own, with nobody's progress and
no progress bars, as its script renders it."""

import atexit
import os
import tempfile
from pathlib import Path
from unittest import mock

import pytest

_HOME = tempfile.TemporaryDirectory()
atexit.register(_HOME.cleanup)
_STARTUP = Path(_HOME.name, "profile_default", "startup", "begin.py")  # which IPython runs
_STARTUP.parent.mkdir(parents=True)
_STARTUP.write_text(
    f"import os, tempfile\nos.chdir(tempfile.mkdtemp(dir={_HOME.name!r}))\nos.mkdir('models')\n",
    encoding="utf-8",
)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Under pytest-xdist, group the cells of a notebook, which share a kernel."""
    if getattr(config.option, "numprocesses", None) and config.option.dist == "no":
        config.option.dist = "loadfile"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    # A hook, not a fixture: nbval starts a kernel before any fixture of its cells would run.
    folders = dict.fromkeys(("ONNX_WORKBENCH_HOME", "IPYTHONDIR"), _HOME.name)
    # Two notebooks at a time: torch's threads would wait for those of the other one.
    alone = {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    with mock.patch.dict(os.environ, {**alone, **folders}):
        return (yield)
