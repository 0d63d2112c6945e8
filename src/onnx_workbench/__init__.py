"""Follow one line of PyTorch to the ONNX Runtime kernel that runs it.

>>> import onnx_workbench as ow
>>> print(*sorted(ow.__all__))  # doctest: +NORMALIZE_WHITESPACE
audit capture check compiled errors export lessons load observe opsets placed probe profile race
sweep trace tune verify view watch weigh

The names are loaded when they are first used (`SPEC 1 <https://scientific-python.org/specs/spec-0001/>`_),
so that this import costs milliseconds and :func:`check` can report on a torch that does not import.
"""

try:
    import lazy_loader as lazy
except ModuleNotFoundError:  # nothing is installed yet, and check() can still say so
    from .stack import check as check
else:
    __getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
__version__ = "0.1.0"
