"""What the notebooks learn with: the models, the exercises, the map, and two things to play with.

>>> from onnx_workbench import lessons
>>> sorted(lessons.__all__)
['digits', 'draw_digit', 'encoder', 'exercise', 'explore', 'photographs', 'progress']
"""

import lazy_loader as lazy

from ..stack import needs

_found, __dir__, __all__ = lazy.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    with needs(f"lessons.{name}", "view", "plot", "lessons"):
        return _found(name)
