"""``python -m onnx_workbench audit package.module:factory``: the audit in a terminal, or in CI.

The factory is called without arguments and returns ``model, args``, or ``model, args, options``: a
dict of audit()'s options, such as ``kwargs``, ``dynamic_shapes`` or ``opset_version``.
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
    path = [*sys.path]
    try:
        return _audit(options.parse_args(words))
    except WorkbenchError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: there is no report", file=sys.stderr)
        return 130
    finally:
        sys.path[:] = path


def _audit(command: argparse.Namespace) -> int:
    from . import files
    from .report import audit, bundle

    if command.report:
        files.target(command.report)
    if command.bundle:
        bundle.target(command.bundle)
    model, args, options = _call_factory(command.factory)
    try:
        inspect.signature(audit).bind(model, args, **options)
    except TypeError as error:
        raise InputError(f"The factory {command.factory!r} returned options: {error}.") from error
    report = audit(model, args, **{**options, "skip": {*options.get("skip", ()), *command.skip}})
    print(report)
    if command.report:
        report.save(command.report)
    if command.bundle:
        report.bundle(command.bundle)
    return 0 if report else 1


def _call_factory(name: str) -> Any:
    """Return what the factory returns, or raise an InputError that says what is wrong with it."""
    sys.path.insert(0, "")  # as `python -m` does, so that modules in the current folder are found
    module, _, path = name.partition(":")
    if not (module and path):
        raise InputError(
            f"{name!r} names no function: audit takes package.module:function, such as "
            "models.encoder:build for the function build() in models/encoder.py."
        )
    try:
        factory: Any = reduce(getattr, path.split("."), importlib.import_module(module))
        result = factory()
    except (Exception, SystemExit) as error:
        raise InputError(
            f"The factory {name!r} cannot be called: {type(error).__name__}: {error}. "
            "Pass package.module:function, of a function that takes no arguments."
        ) from error
    match result:
        case (model, tuple(args)):
            return model, args, {}
        case (model, tuple(args), dict(options)):
            return model, args, options
    raise InputError(
        f"The factory {name!r} returned {_outline(result)}, but must return (model, args) or "
        "(model, args, options), with args a tuple and options a dict of audit()'s options: "
        "{'dynamic_shapes': {'x': {0: 'batch'}}}."
    )


def _outline(value: Any) -> str:
    inside = ", ".join(type(item).__name__ for item in value) if isinstance(value, tuple) else ""
    return f"({inside})" if inside else f"a {type(value).__name__}"


if __name__ == "__main__":
    sys.exit(main())
