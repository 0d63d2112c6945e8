"""How nbval runs a lesson: in a folder of its own, and as a whole in one process."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

_BEGIN = """\
import os, tempfile
os.chdir(tempfile.mkdtemp(dir={!r}))
os.mkdir("models")
"""


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Under pytest-xdist, group the cells of a notebook, which share a kernel."""
    if getattr(config.option, "numprocesses", None) and config.option.dist == "no":
        config.option.dist = "loadfile"


def pytest_configure(config: pytest.Config) -> None:
    """Begin each kernel in a new folder with ``models/``, so that a lesson leaves no files here."""
    home = Path(tempfile.mkdtemp(prefix="lessons-"))
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))
    startup = home / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "begin.py").write_text(_BEGIN.format(str(home)), encoding="utf-8")
    os.environ["IPYTHONDIR"] = str(home)  # IPython runs what is in there
