"""Inference methods with their options, guide families and optimisers, by name."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from guidebook import guides, inference
from guidebook.catalog.entry import Guide
from guidebook.inference.mcmc.kernels import KERNELS
from guidebook.inference.optim.losses import LOSSES
from guidebook.inference.traces.guides import preferred_options
from guidebook.workflow.options import Option

FAMILIES: dict[str, Guide] = {
    family.__name__: Guide(family, loss=preferred_options(family).get("loss", "trace"))
    for family in (guides.mean_field, guides.low_rank, guides.full_rank, guides.flow, guides.laplace, guides.map_point)
}
ALIASES = {"map": "map_point", "laplace": "laplace"}  # methods that are svi with a guide
OPTIMISERS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}


class Method(NamedTuple):
    """An inference method: ``(*what it takes, *data, **options) -> Posterior``.

    ``takes``, what goes before the data, is "model"; "guide", for a model and its guide; "latent_model", for the model
    with explicit latent variables; "steps" or "solution", which the model's row makes; "guide or steps", for the steps
    of the row, if it has some, and no guide is asked for.
    """

    function: Callable
    takes: str
    options: dict[str, Option]  # those that --set may give; one that the row's steps name goes to them
    counts: tuple[str, ...] = ()  # keywords for --steps, --draws, --warmup and --chains, as far as it has them
    defaults: Mapping[str, Any] = MappingProxyType({})  # keyword arguments other than the function's own defaults


_STEPS, _CHAINS = ("num_steps",), ("num_draws", "num_warmup", "num_chains")
_LR = {"lr": Option(float, None, "step size of the optimiser", 0, False)}
_OPTIM = {"optim": Option(str, None, "optimiser", choices=tuple(OPTIMISERS))}
_TARGET = {"target_accept": Option(float, None, "acceptance probability to adapt the step size to", 0, False)}
_RESTARTS = {
    "num_restarts": Option(int, None, "number of starts; the best wins", 1),
    "tol": Option(float, None, "distance to the limit, in nats, at which a restart stops", 0, False),
}
_THIN = {"thin": Option(int, None, "iterations per draw", 1)}

METHODS: dict[str, Method] = {
    "svi": Method(
        inference.svi,
        "guide",
        _LR
        | _OPTIM
        | {
            "batch_size": Option(int, None, "rows per step; default: all", 1),
            "num_restarts": Option(int, None, "number of starts; steps are taken from the best", 1),
            "loss": Option(str, None, "loss to minimise", choices=tuple(LOSSES)),
            "num_particles": Option(int, None, "draws of the guide per step", 1),
            "renyi_order": Option(float, None, "order of the loss renyi"),
            "alternate": Option(int, None, "gradient steps per half-step of variational EM", 1),
            "warm_up": Option(int, None, "steps over which the divergence from the prior is annealed in", 1),
        },
        _STEPS,
        {"local_draws": False},
    ),
    "online": Method(
        inference.online,
        "guide or steps",
        _LR
        | _OPTIM
        | {
            "batch_size": Option(int, None, "rows per step; default: what the source says, or 1,000", 1),
            "num_epochs": Option(int, None, "passes over the rows", 1),
            "decay": Option(float, None, "power by which steps decay, above 0.5 and at most 1"),
            "offset": Option(float, None, "steps by which the decay is put off", 0),
        },
        ("num_draws",),
    ),
    "dadvi": Method(
        inference.dadvi,
        "model",
        {
            "num_restarts": Option(int, None, "number of starts; the best wins", 1),
            "linear_response": Option(bool, None, "whether covariances are by linear response"),
        },
    ),
    "pathfinder": Method(
        inference.pathfinder,
        "model",
        {
            "num_paths": Option(int, None, "paths, each from its own start", 1),
            "max_steps": Option(int, None, "steps per path at most", 1),
        },
        ("num_draws",),
    ),
    "nuts": Method(
        inference.nuts,
        "model",
        _TARGET | {"engine": Option(str, None, "sampling engine", choices=("auto", "pyro", "xla"))},
        _CHAINS,
    ),
    "hmc": Method(
        inference.hmc,
        "model",
        _TARGET | {"trajectory_length": Option(float, None, "length of a trajectory, in the adapted metric", 0, False)},
        _CHAINS,
    ),
    "metropolis": Method(inference.metropolis, "model", _THIN, _CHAINS),
    "em": Method(
        inference.em,
        "steps",
        _RESTARTS
        | {
            "map": Option(bool, False, "whether to maximise the joint density with the prior"),
            "accelerate": Option(bool, None, "whether to go on from where the last iterations lead"),
        },
        _STEPS,
    ),
    "closed_form": Method(inference.closed_form, "solution", {}, ("num_draws",)),
    "cavi": Method(inference.cavi, "steps", _RESTARTS, _STEPS),
    # Gibbs sweeps are cheap and successive ones are similar.
    "gibbs": Method(inference.gibbs, "steps", _THIN, _CHAINS, {"thin": 5}),
    "mcem": Method(
        inference.mcem,
        "latent_model",
        _LR
        | {
            "kernel": Option(str, None, "kernel of the E-step's chain", choices=tuple(KERNELS)),
            "num_transitions": Option(int, None, "transitions per E-step", 1),
        },
        _STEPS,
    ),
}
