"""``python -m onnx_workbench audit package.module:factory``: the audit in a terminal, or in CI.

The factory is called without arguments and returns ``model, args``, or ``model, args, options``: a
dict of what audit() takes by name, such as ``kwargs``, ``dynamic_shapes`` or ``opset_version``.
Exit code: 0 nothing to fix, 1 findings, 2 the command was wrong.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys
from functools import reduce
from typing import Any

from .errors import InputError, WorkbenchError


def main(words: list[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    options = argparse.ArgumentParser(
        prog="python -m onnx_workbench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = options.add_subparsers(dest="command", required=True)
    audit = commands.add_parser("audit", help="audit a model")
    audit.add_argument("factory", help="package.module:factory")
    audit.add_argument("--report", metavar="FILE.html", help="write the report as a page")
    audit.add_argument("--bundle", metavar="FOLDER|FILE.zip", help="write a repro without weights")
    audit.add_argument("--skip", nargs="*", default=[], metavar="STAGE", help="stages to leave out")
    try:
        return _audit(options.parse_args(words))
    except WorkbenchError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: there is no report", file=sys.stderr)
        return 130


def _audit(asked: argparse.Namespace) -> int:
    from . import files
    from .report import audit, bundle

    if asked.report:
        files.target(asked.report)
    if asked.bundle:
        bundle.target(asked.bundle)
    model, args, options = _made(asked.factory)
    try:
        inspect.signature(audit).bind(model, args, **options)
    except TypeError as error:
        raise InputError(f"The factory {asked.factory!r} returned options: {error}.") from error
    report = audit(model, args, **{**options, "skip": {*options.get("skip", ()), *asked.skip}})
    print(report)
    if asked.report:
        report.save(asked.report)
    if asked.bundle:
        report.bundle(asked.bundle)
    return 0 if report else 1


def _made(name: str) -> Any:
    """What the factory returns, or an InputError that says what is wrong with it."""
    sys.path.insert(0, "")  # as `python -m` does: what lies in the current folder can be named
    module, _, path = name.partition(":")
    if not (module and path):
        raise InputError(
            f"{name!r} names no function: audit takes package.module:function, such as "
            "models.encoder:made for the function made() in models/encoder.py."
        )
    try:
        factory: Any = reduce(getattr, path.split("."), importlib.import_module(module))
        made = factory()
    except (Exception, SystemExit) as error:
        raise InputError(
            f"The factory {name!r} cannot be called: {type(error).__name__}: {error}. "
            "Pass package.module:function, of a function that takes no argument."
        ) from error
    match made:
        case (model, tuple(args)):
            return model, args, {}
        case (model, tuple(args), dict(options)):
            return model, args, options
    raise InputError(
        f"The factory {name!r} returned {_outline(made)}, and it must return (model, args) or "
        "(model, args, options), with args a tuple and options a dict of what audit() takes by "
        "name: {'dynamic_shapes': {'x': {0: 'batch'}}}."
    )


def _outline(made: Any) -> str:
    inside = ", ".join(type(one).__name__ for one in made) if isinstance(made, tuple) else ""
    return f"({inside})" if inside else f"a {type(made).__name__}"


if __name__ == "__main__":
    sys.exit(main())
