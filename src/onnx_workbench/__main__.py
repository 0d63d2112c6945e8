"""The audit in a terminal, or in CI: ``python -m onnx_workbench audit package.module:factory``.

The factory is called without arguments and returns ``model, args``, or ``model, args, options``: a
dict of audit()'s options, such as ``kwargs``, ``dynamic_shapes`` or ``opset_version``.
Exit code: 0 nothing to fix, 1 findings, 2 the command was wrong.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from contextlib import redirect_stdout
from functools import reduce
from typing import TYPE_CHECKING, Any

from .brief import brief
from .errors import CallError, InputError, WorkbenchError
from .machine import packages

if TYPE_CHECKING:
    from .report import Audit


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m onnx_workbench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    installed = ", ".join(f"{name} {version}" for name, version in packages().items())
    parser.add_argument("--version", action="version", version=installed)
    commands = parser.add_subparsers(dest="command", required=True)
    audit = commands.add_parser("audit", help="audit a model")
    audit.set_defaults(run=_audit)
    audit.add_argument("factory", help="package.module:factory")
    audit.add_argument("--format", choices=("text", "json", "github"), default="text")
    audit.add_argument("--baseline", metavar="KNOWN.json", help="findings of this report pass")
    audit.add_argument("--ignore", nargs="+", default=[], metavar="CODE", help="these codes pass")
    audit.add_argument("--opset", type=int, help="the opset to export")
    audit.add_argument("--report", metavar="FILE.html", help="write the report as a page")
    audit.add_argument("--bundle", metavar="FOLDER|FILE.zip", help="write a repro without weights")
    audit.add_argument("--skip", nargs="*", default=[], metavar="STAGE", help="stages to leave out")
    explain = commands.add_parser("explain", help="what a code means")
    explain.set_defaults(run=_explain)
    explain.add_argument("code", help="such as OW101")
    path = [*sys.path]
    try:
        command = parser.parse_args(argv)
        return command.run(command)
    except WorkbenchError as error:
        print(brief(error), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: there is no report", file=sys.stderr)
        return 130
    finally:
        sys.path[:] = path


def _explain(command: argparse.Namespace) -> int:
    from .report.codes import explained

    print(explained(command.code))
    return 0


def _audit(command: argparse.Namespace) -> int:
    from . import files
    from .report import bundle, changes, codes, formats

    if command.report is not None:  # "" is a path, and a wrong one
        files.writable_page(command.report)
    if command.bundle is not None:
        bundle.writable(command.bundle)
    known = [] if command.baseline is None else changes.faults(command.baseline)  # before the work
    ignored = codes.ignored(command.ignore)
    report = _report(command)
    counted, says = changes.gate(report, known, ignored)
    if command.format == "json":
        print(json.dumps(report.to_dict(), indent=1, allow_nan=False))
    elif command.format == "github":
        for line in formats.github(counted):
            print(line)
    else:
        print(report)
    if command.baseline or command.ignore or command.format == "github":
        print(says, file=sys.stderr if command.format == "json" else sys.stdout)
    if command.report:
        report.save(command.report)
    if command.bundle:
        report.bundle(command.bundle)
    return 1 if counted else 0


def _report(command: argparse.Namespace) -> Audit:
    """Audit what the factory returns."""
    from .report import audit, codes

    try:
        with redirect_stdout(sys.stderr):  # what the factory and the model print is no report
            model, args, options = _call_factory(command.factory)
            if command.skip:
                options["skip"] = codes.stages(options.get("skip", ())) | {*command.skip}
            if command.opset is not None:
                options["opset_version"] = command.opset
            return audit(model, args, **options)
    except CallError as error:
        raise InputError(
            f"The factory {command.factory!r} returned options that do not fit: {error}.",
            "Return only options of audit(), such as dynamic_shapes.",
        ) from error


def _call_factory(name: str) -> Any:
    """Return what the factory returns, or raise an InputError that says what is wrong with it."""
    sys.path.insert(0, "")  # as `python -m` does, so that modules in the current folder are found
    module, _, path = name.partition(":")
    if not (module and path):
        raise InputError(
            f"{name!r} names no function.",
            "Pass package.module:function, such as models.encoder:build for the function build() "
            "in models/encoder.py.",
        )
    try:
        factory: Any = reduce(getattr, path.split("."), importlib.import_module(module))
        result = factory()
    except (Exception, SystemExit) as error:
        raise InputError(
            f"The factory {name!r} cannot be called: {type(error).__name__}: {error}.",
            "Pass package.module:function, of a function that takes no arguments.",
        ) from error
    match result:
        case (model, tuple(args)):
            return model, args, {}
        case (model, tuple(args), dict(options)) if all(isinstance(key, str) for key in options):
            return model, args, options
    raise InputError(
        f"The factory {name!r} returned {_outline(result)}.",
        "Return (model, args) or (model, args, options), with args a tuple and options a dict of "
        "audit()'s options: {'dynamic_shapes': {'x': {0: 'batch'}}}.",
    )


def _outline(value: Any) -> str:
    inside = ", ".join(type(item).__name__ for item in value) if isinstance(value, tuple) else ""
    return f"({inside})" if inside else f"a {type(value).__name__}"


if __name__ == "__main__":
    sys.exit(main())
