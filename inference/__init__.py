"""Inference methods: each takes functions and data and returns a `Posterior`; `compare` takes two of those."""

from .compare import Comparison, compare
from .em import em
from .info import EmInfo, NutsInfo, SviInfo
from .nuts import nuts
from .posterior import Posterior
from .svi import svi
from .verdict import Verdict

__all__ = ["Comparison", "EmInfo", "NutsInfo", "Posterior", "SviInfo", "Verdict", "compare", "em", "nuts", "svi"]
