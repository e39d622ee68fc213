"""Methods with their options, guide families and optimisers, by the names that a user gives."""

from collections.abc import Callable

import torch

from guidebook import guides
from guidebook.inference.mcmc.kernels import KERNELS
from guidebook.inference.optim.losses import LOSSES
from guidebook.workflow.options import Option

FAMILIES: dict[str, Callable] = {
    "mean_field": guides.mean_field,
    "low_rank": guides.low_rank,
    "full_rank": guides.full_rank,
    "flow": guides.flow,
    "laplace": guides.laplace,
    "map_point": guides.map_point,
}

_LR = Option(float, None, "step size of the optimiser", 0, False)
_TARGET = Option(float, None, "acceptance probability that the step size aims at", 0, False)
_RESTARTS = Option(int, None, "starts, of which the best wins", 1)
_TOL = Option(float, None, "distance to the limit, in nats, at which a restart stops", 0, False)
_THIN = Option(int, None, "iterations a draw", 1)

OPTIMISERS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}

METHODS: dict[str, dict[str, Option]] = {
    "svi": {
        "lr": _LR,
        "loss": Option(str, None, "what is minimised", choices=tuple(LOSSES)),
        "num_particles": Option(int, None, "draws of the guide a step", 1),
        "renyi_order": Option(float, None, "order of the loss renyi"),
        "batch_size": Option(int, None, "rows a step; all of them where left out", 1),
        "alternate": Option(int, None, "gradient steps a half-step of variational EM", 1),
        "optim": Option(str, None, "optimiser", choices=tuple(OPTIMISERS)),
        "warm_up": Option(int, None, "steps over which the rows' divergence from their prior comes in", 1),
    },
    "nuts": {
        "target_accept": _TARGET,
        "engine": Option(str, None, "who samples", choices=("auto", "pyro", "xla")),
    },
    "hmc": {
        "target_accept": _TARGET,
        "trajectory_length": Option(float, None, "length of a trajectory, in the adapted metric", 0, False),
    },
    "metropolis": {"thin": _THIN},
    "em": {
        "num_restarts": _RESTARTS,
        "tol": _TOL,
        "map": Option(bool, False, "whether to maximise the joint density with the prior"),
        "accelerate": Option(bool, None, "whether to extrapolate"),
    },
    "closed_form": {},
    "cavi": {"num_restarts": _RESTARTS, "tol": _TOL},
    "gibbs": {"thin": _THIN},
    "mcem": {
        "lr": _LR,
        "kernel": Option(str, None, "how the E-step's chain moves", choices=tuple(KERNELS)),
        "num_transitions": Option(int, None, "transitions an E-step", 1),
    },
}
SHORT = {"map": "map_point", "laplace": "laplace"}  # methods that are short for svi with a guide
