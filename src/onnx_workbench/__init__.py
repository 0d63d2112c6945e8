"""Follow one line of PyTorch to the ONNX Runtime kernel that runs it.

>>> import onnx_workbench as ow
>>> print(*sorted(ow.__all__))  # doctest: +NORMALIZE_WHITESPACE
audit capture check compiled errors export lessons load observe opsets placed probe profile race
sweep trace verify view watch

The names are loaded when they are first used (`SPEC 1 <https://scientific-python.org/specs/spec-0001/>`_),
so that this import costs milliseconds and :func:`check` can report on a torch that does not import.
"""

try:
    import lazy_loader as lazy
except ModuleNotFoundError:  # nothing is installed yet, and check() can still say so
    from .stack import check as check
else:
    _found, __dir__, __all__ = lazy.attach_stub(__name__, __file__)

    def __getattr__(name: str) -> object:
        return _found(name) if name not in _FORMER else lambda *_, **__: _gone(name)


__version__ = "0.2.0"
_FORMER = {
    "weigh": "race(targets, args).plot('startup')",
    "tune": "race(onnx.variants(), args)",
}
"""Functions of version 0.1 -> what does the same now."""


def _gone(name: str) -> None:
    from .errors import InputError

    raise InputError(f"{name}() is gone.", f"Write {_FORMER[name]}, which shows the same.")
