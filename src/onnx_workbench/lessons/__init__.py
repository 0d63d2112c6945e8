"""What the notebooks learn with: the models, the exercises, the map, and two things to play with.

>>> from onnx_workbench import lessons
>>> sorted(lessons.__all__)
['digits', 'draw_digit', 'encoder', 'exercise', 'explore', 'progress']
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
