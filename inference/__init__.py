"""Inference methods: each takes functions and data and returns a `Posterior`; `compare` takes two of those."""

from .cavi import cavi
from .closed_form import closed_form
from .compare import Comparison, compare
from .discrete import discrete_draws
from .em import em
from .evidence import Evidence, evidence
from .gibbs import gibbs
from .gradients import elbo_gradients
from .hmc import hmc
from .info import (
    CaviInfo,
    ClosedFormInfo,
    EmInfo,
    GibbsInfo,
    HmcInfo,
    McemInfo,
    MetropolisInfo,
    NutsInfo,
    PathfinderInfo,
    SviInfo,
)
from .mcem import mcem
from .metropolis import metropolis
from .nuts import nuts
from .optim.losses import kl_warm_up
from .pathfinder import pathfinder
from .posterior import Posterior
from .svi import svi
from .verdict import Verdict

__all__ = [
    "CaviInfo",
    "ClosedFormInfo",
    "Comparison",
    "EmInfo",
    "Evidence",
    "GibbsInfo",
    "HmcInfo",
    "McemInfo",
    "MetropolisInfo",
    "NutsInfo",
    "PathfinderInfo",
    "Posterior",
    "SviInfo",
    "Verdict",
    "cavi",
    "closed_form",
    "compare",
    "discrete_draws",
    "elbo_gradients",
    "em",
    "evidence",
    "gibbs",
    "hmc",
    "kl_warm_up",
    "mcem",
    "metropolis",
    "nuts",
    "pathfinder",
    "svi",
]
