from . import errors as errors
from . import lessons as lessons
from .artifact import export as export
from .artifact import load as load
from .bytecode import watch as watch
from .capturing.graph import capture as capture
from .costs import weigh as weigh
from .divergence import verify as verify
from .inspection import audit as audit
from .ladder import opsets as opsets
from .lines.hotspots import profile as profile
from .lines.lineage import trace as trace
from .racing.call import compiled as compiled
from .racing.call import placed as placed
from .racing.race import race as race
from .racing.sweep import sweep as sweep
from .shapes.calls import observe as observe
from .shapes.contract import probe as probe
from .stack import check as check
from .tuning import tune as tune
from .viewer import view as view

__version__: str
