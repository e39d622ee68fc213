"""Draws of a guide that its author has trained, with Pyro's parameter store as it stands; neither is changed."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pyro
import torch
from pyro.infer.autoguide import AutoGuide
from torch import Tensor

from .draws import Sites, draw_guide
from .guides import clone_guide, is_family, is_point
from .handlers import FullPlates
from .isolate import isolated
from .params import constrained_params
from .prepare import Prepared, prepare
from .run import first_run


class Trained(NamedTuple):
    """What a trained guide gives: draws (1, draw, *site), one of a point, and the store's parameters, constrained."""

    draws: Sites
    params: dict[str, Tensor]
    is_point: bool


def draws_of_trained(
    method: str, guide: Any, model: Callable, data: tuple, *, num_draws: int, device: Any, seed: int
) -> Trained:
    """Return draws from a trained guide: a function, an autoguide or another ``PyroModule``.

    A ValueError, in the method's name, says if it is not trained, or cannot be run.
    """
    if is_family(guide) or (isinstance(guide, AutoGuide) and guide.prototype_trace is None):
        raise ValueError(f"{method}: the guide is not fitted: give what svi returned, or a guide after its training")
    store = pyro.get_param_store().get_state()
    params = {name: value.detach().clone() for name, value in pyro.get_param_store().items()}
    prepared = prepare_at(method, model, data, params, device=device, exact=False)
    guide = clone_guide(guide)
    with isolated(seed, prepared.dtype), torch.no_grad():
        copies = {name: value.detach().clone().requires_grad_() for name, value in store["params"].items()}
        pyro.get_param_store().set_state({"params": copies, "constraints": store["constraints"]})
        first_run(method, guide, prepared.rows, "guide")
        if prepared.subsampling:
            guide = FullPlates(guide)
        point = is_point(guide, prepared.rows)
        found = draw_guide(prepared.log_joint(), guide, 1 if point else num_draws, None).sites
    draws = {name: value.cpu()[None] for name, value in found.items()}
    return Trained(draws | (prepared.held_draws(draws) if draws else {}), params, point)


def prepare_at(method: str, model: Callable, data: tuple, params: Mapping[str, Tensor], **options: Any) -> Prepared:
    """Return a model as `prepare` does, held at those of the parameters that are its own; others are a guide's."""
    prepared = prepare(method, model, data, **options)
    own = {name: params[name] for name in constrained_params(prepared.trace) if name in params}
    return prepare(method, model, data, params=own, **options) if own else prepared
