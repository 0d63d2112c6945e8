from .classifier import photographs as photographs
from .course import progress as progress
from .explorer import explore as explore
from .pad import draw_digit as draw_digit
from .reader import digits as digits
from .transformer import encoder as encoder
from .workbook import exercise as exercise
