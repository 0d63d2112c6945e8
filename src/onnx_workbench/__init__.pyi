from . import lessons as lessons
from .artifact import export as export
from .artifact import load as load
from .calls import observe as observe
from .contract import probe as probe
from .costs import weigh as weigh
from .divergence import verify as verify
from .frames import watch as watch
from .graph import capture as capture
from .hotspots import profile as profile
from .inspection import audit as audit
from .ladder import opsets as opsets
from .lineage import trace as trace
from .racing.call import compiled as compiled
from .racing.race import race as race
from .stack import check as check
from .tuning import tune as tune
from .viewer import view as view

__version__: str
