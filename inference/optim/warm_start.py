"""Where gradient steps start: at the parameters of an earlier fit, or with a guide at draws of another posterior."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro.infer.autoguide import AutoGuide
from pyro.poutine import Trace
from torch import Tensor

from ..mcmc.fast_start import shrunk_covariance
from ..posterior import Posterior
from ..traces.guides import display_name
from ..traces.log_joint import LogJoint
from ..traces.params import Leaf, leaves_by_name, misfit, set_leaves
from ..traces.potential import Potential
from ..traces.target import unconstrained_draws
from ..traces.vectors import Sites

Init = Posterior | Mapping[str, Tensor]
MOST_DRAWS = 4000  # that means and sds are taken from


@torch.no_grad()
def warm_start(init: Init, guide: Callable, joint: LogJoint, guide_trace: Trace, model_trace: Trace) -> None:
    """Set the parameters of a guide and of a model, which exist already, to those of ``init``.

    If it is a posterior without parameters that fit the guide, the guide gets the mean and the standard deviations (or
    the covariance) of its draws on the unconstrained scale. A ValueError, in svi's name, says why neither can be done.
    """
    given = init.params if isinstance(init, Posterior) else init
    of_guide = leaves_by_name(guide_trace)
    leaves = leaves_by_name(model_trace) | of_guide
    own = {name: value for name, value in given.items() if name in leaves and name not in of_guide}
    if isinstance(init, Posterior) and init.draws and misfit(given, of_guide):
        own |= _of_draws(guide, _unconstrained(init.samples, joint), of_guide, joint)
    else:
        set_leaves("svi", given, of_guide)
    set_leaves("svi", own, {name: leaves[name] for name in own})


def _unconstrained(samples: Sites, joint: LogJoint) -> Sites:
    """Return some of a posterior's samples, those that are finite, on the unconstrained scale: (draw, *site)."""
    length = len(next(iter(samples.values())))
    kept = torch.linspace(0, length - 1, min(length, MOST_DRAWS)).round().long()
    found = unconstrained_draws("svi", Potential(joint), {name: value[kept] for name, value in samples.items()})
    finite = torch.stack([value.reshape(len(value), -1).isfinite().all(1) for value in found.values()]).all(0)
    if not bool(finite.any()):
        raise ValueError("svi: no draw of init lies within the supports of the model's sites")
    return {name: value[finite] for name, value in found.items()}


def _of_draws(guide: Any, draws: Sites, leaves: Mapping[str, Leaf], joint: LogJoint) -> dict[str, Tensor]:
    """Return values of a guide's parameters, by name, that give it the mean and the spread of draws."""
    prefix = f"{guide._pyro_name}." if isinstance(guide, AutoGuide) else ""
    own = {name.removeprefix(prefix): leaf for name, (leaf, _) in leaves.items()}
    means = {name: value.mean(0) for name, value in draws.items()}
    if prefix and "loc" in own:  # one vector of all sites
        found: Any = guide.prototype_trace
        order = [name for name, _ in found.iter_stochastic_nodes()]
        vectors = torch.cat([draws[name].reshape(len(draws[name]), -1) for name in order], 1)
        values = _of_normal(vectors, own)
    elif prefix and all(f"locs.{name}" in own for name in draws):
        values = {f"locs.{name}": mean for name, mean in means.items()}
        if all(_varies(value) for value in draws.values()):
            values |= {f"scales.{name}": value.std(0) for name, value in draws.items()}
    elif prefix and all(name in own for name in draws):
        values = Potential(joint).constrained(means)
    else:
        raise ValueError(
            f"svi: {display_name(guide)} has no mean and spread that draws could give: let init be the params of an "
            "earlier fit of the same guide, or take a guide family such as mean_field, full_rank or flow"
        )
    return {f"{prefix}{name}": value for name, value in values.items()}


def _of_normal(vectors: Tensor, leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a normal's parameters from vectors (draw, d): the location alone if these do not vary."""
    values = {"loc": vectors.mean(0)}
    if "scale" not in leaves or not _varies(vectors):
        return values
    if "scale_tril" in leaves:
        factor = torch.linalg.cholesky(shrunk_covariance(vectors, vectors.shape[1]))
        scale = factor.diagonal()
        return values | {"scale": scale, "scale_tril": factor / scale[:, None]}
    scale = vectors.std(0)
    if "cov_factor" in leaves:
        scale = scale / (1 + leaves["cov_factor"].to(scale).square().sum(1)).sqrt()
    return values | {"scale": scale}


def _varies(draws: Tensor) -> bool:
    return len(draws) > 1 and bool((draws.std(0) > 0).all())
