"""Posteriors made of given draws, for tests of what is done with them."""

from torch import Tensor

from guidebook.inference import ExternalInfo, Posterior


def posterior_of(params: dict[str, Tensor] | None = None, **draws: Tensor) -> Posterior:
    """A posterior of these draws, (chain, draw, *site) each."""
    info = ExternalInfo(method="made", seconds=0.0, converged=True, message="given")
    return Posterior(draws=draws, params=params or {}, info=info)
