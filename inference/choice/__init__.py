"""Which of several models of the same rows predicts best, from log densities of rows that the fits did not see."""

from .choose import RULE, Choice, choose
from .loo import loo
from .score import Score, held_out, psis_loo

__all__ = ["RULE", "Choice", "Score", "choose", "held_out", "loo", "psis_loo"]
