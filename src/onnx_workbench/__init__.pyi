from . import lessons as lessons
from .artifact import export as export
from .artifact import load as load
from .divergence import verify as verify
from .frames import watch as watch
from .graph import capture as capture
from .hotspots import profile as profile
from .latency import race as race
from .lineage import trace as trace
from .stack import check as check
from .viewer import view as view

__version__: str
