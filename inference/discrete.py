"""Draws of discrete latent sites, which every method sums out, from their exact posterior at each draw of the others.

Obermeyer, Bingham, Jankowiak, Pradhan, Chiu, Rush and Goodman (2019), Tensor variable elimination for plated factor
graphs, ICML, section 4: sampling by the same elimination, run backwards.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .options import options_by_name
from .posterior import Posterior
from .traces.isolate import check_seed, isolated
from .traces.prepare import prepare
from .traces.sites import nodes
from .traces.supports import UNCONSTRAINED
from .traces.validation import unvalidated
from .traces.vmap import map_rows


@options_by_name
def discrete_draws(
    posterior: Posterior,
    model: Callable,
    *data: Any,
    model_kwargs: Mapping[str, Any] | None = None,
    params: Mapping[str, Tensor] | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Draw the discrete latent sites of a model that a posterior lacks, jointly, given each of its draws.

    Parameters
    ----------
    posterior : Posterior
        Of any method, with draws of all continuous latent sites of the model.
    model : callable
        The model that was fitted.
    *data
        Its arguments.
    model_kwargs : mapping, optional
        Further arguments of the model by name: data or options.
    params : dict of Tensor, optional
        Values, constrained, of the model's ``pyro.param`` statements. Default: those in ``posterior.params``.
    seed : int

    Returns
    -------
    dict of Tensor
        By site, shape (chain, draw, *site).

    Raises
    ------
    ValueError
        If the model has no discrete latent site, or the posterior lacks draws of a continuous one.
    """
    check_seed(seed)
    statements = prepare("discrete_draws", model, data).params
    known = {name: value for name, value in posterior.params.items() if name in statements} | dict(params or {})
    prepared = prepare("discrete_draws", model, data, params=known)
    joint = prepared.log_joint()
    if not joint.summed:
        raise ValueError("discrete_draws: the model has no discrete latent site to draw")
    names = [name.removesuffix(UNCONSTRAINED) for name in joint.latent]
    if missing := [name for name in names if name not in posterior.draws]:
        raise ValueError(f"discrete_draws: the posterior has no draws of the model's site {missing[0]!r}")
    if not names:
        raise ValueError("discrete_draws: the model has no continuous latent site, so that there are no draws to go by")

    def draw(values: dict[str, Tensor]) -> dict[str, Tensor]:
        found = nodes(joint.with_discrete(joint.completed(values)))
        return {name: found[name]["value"] for name in sorted(joint.summed)}

    shape = posterior.draws[names[0]].shape[:2]
    rows = {name: posterior.draws[name].to(prepared.dtype).flatten(0, 1) for name in names}
    with isolated(seed, prepared.dtype), torch.no_grad(), unvalidated():
        found = map_rows(draw, rows, chunk_size=1000)
    return {name: value.cpu().unflatten(0, shape) for name, value in found.items()}
