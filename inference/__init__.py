"""Inference methods: each takes functions and data and returns a `Posterior`; `compare` takes two of those."""

from .apply_guide import apply_guide
from .calibrate import Calibration, calibrate
from .cavi import cavi
from .check import Check, check
from .choice import Choice, Score, choose, held_out, loo, psis_loo
from .closed_form import closed_form
from .compare import Comparison, compare
from .coords import coords
from .dadvi import dadvi
from .discrete import discrete_draws
from .em import em
from .evidence import Evidence, evidence
from .fit import fit
from .gibbs import gibbs
from .gradients import elbo_gradients
from .hmc import hmc
from .info import (
    CaviInfo,
    CheckInfo,
    ClosedFormInfo,
    DadviInfo,
    EmInfo,
    ExternalInfo,
    FitInfo,
    GibbsInfo,
    HmcInfo,
    McemInfo,
    MetropolisInfo,
    NutsInfo,
    OnlineInfo,
    PathfinderInfo,
    SviInfo,
)
from .log_likelihood import log_likelihood
from .mcem import mcem
from .metropolis import metropolis
from .nuts import nuts
from .online import online
from .optim.losses import kl_warm_up
from .pathfinder import pathfinder
from .posterior import Posterior
from .predictive import posterior_predictive, prior_predictive
from .streams import Stream, stream
from .svi import svi
from .verdict import Verdict

__all__ = [
    "Calibration",
    "CaviInfo",
    "Check",
    "CheckInfo",
    "Choice",
    "ClosedFormInfo",
    "Comparison",
    "DadviInfo",
    "EmInfo",
    "Evidence",
    "ExternalInfo",
    "FitInfo",
    "GibbsInfo",
    "HmcInfo",
    "McemInfo",
    "MetropolisInfo",
    "NutsInfo",
    "OnlineInfo",
    "PathfinderInfo",
    "Posterior",
    "Score",
    "Stream",
    "SviInfo",
    "Verdict",
    "apply_guide",
    "calibrate",
    "cavi",
    "check",
    "choose",
    "closed_form",
    "compare",
    "coords",
    "dadvi",
    "discrete_draws",
    "elbo_gradients",
    "em",
    "evidence",
    "fit",
    "gibbs",
    "held_out",
    "hmc",
    "kl_warm_up",
    "log_likelihood",
    "loo",
    "mcem",
    "metropolis",
    "nuts",
    "online",
    "pathfinder",
    "posterior_predictive",
    "prior_predictive",
    "psis_loo",
    "stream",
    "svi",
]
