from . import errors as errors
from . import lessons as lessons
from .agreement import verify as verify
from .artifact import export as export
from .artifact import load as load
from .bytecode import watch as watch
from .graph import capture as capture
from .hotspots import profile as profile
from .opset_table import opsets as opsets
from .report import audit as audit
from .shapes.contract import probe as probe
from .shapes.observed import observe as observe
from .stack import check as check
from .timing.rounds import race as race
from .timing.sizes import sweep as sweep
from .timing.targets import compiled as compiled
from .timing.targets import placed as placed
from .tracing import trace as trace
from .viewer import view as view

__version__: str
