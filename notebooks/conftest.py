"""Keep a notebook in one process under pytest-xdist: its cells share a kernel."""

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Group by file where ``-n`` is given and ``--dist`` is not."""
    if getattr(config.option, "numprocesses", None) and config.option.dist == "no":
        config.option.dist = "loadfile"
