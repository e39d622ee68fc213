"""Inference methods: each takes functions and data and returns a `Posterior`; `compare` takes two of those."""

from .cavi import cavi
from .compare import Comparison, compare
from .em import em
from .gibbs import gibbs
from .info import CaviInfo, EmInfo, GibbsInfo, NutsInfo, SviInfo
from .nuts import nuts
from .posterior import Posterior
from .svi import svi
from .verdict import Verdict

__all__ = [
    "CaviInfo",
    "Comparison",
    "EmInfo",
    "GibbsInfo",
    "NutsInfo",
    "Posterior",
    "SviInfo",
    "Verdict",
    "cavi",
    "compare",
    "em",
    "gibbs",
    "nuts",
    "svi",
]
