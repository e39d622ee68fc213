"""Autoguides in coordinates in which the posterior has about unit scale, started where a fit at fixed draws ends.

A step of .01 then moves every number by .01 of a posterior standard deviation, whatever the units of data and
parameters. While steps are taken, the parameters of a guide are relative to a normal, x = centre + root z, which
Newton's method and L-BFGS have found; afterwards they are written in the model's own coordinates, without loss, since
each of these families is closed under its maps: with a diagonal root, Pyro's `AutoNormal`, `AutoDiagonalNormal` and
`AutoLowRankMultivariateNormal`; with a triangle, `AutoMultivariateNormal` and flows that end in an affine map.

Giordano, Ingram and Broderick (2024), Black box variational inference with a deterministic objective: faster, more
accurate, and even more black box, JMLR 25.
"""

from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions import TransformedDistribution
from pyro.distributions.transforms import AffineTransform, ComposeTransform, LowerCholeskyAffine
from pyro.infer.autoguide import (
    AutoContinuous,
    AutoDiagonalNormal,
    AutoGuide,
    AutoLowRankMultivariateNormal,
    AutoNormal,
)
from pyro.infer.autoguide.utils import deep_setattr
from torch import Tensor

from ..engines.batched import Batched
from ..options import size_of
from ..traces.log_joint import LogJoint
from ..traces.potential import Potential, finite_energy
from ..traces.sites import nodes
from ..traces.vectors import as_sites
from .balanced import balanced_normals
from .coordinates import Coordinates
from .mode import MAX_DENSE
from .normal import fit_normal
from .rounds import MIN_DRAWS, start_at_mode

MAX_SIZE = 1_000_000  # numbers in the data: more take long to go through for a start
DIAGONAL = (AutoNormal, AutoDiagonalNormal, AutoLowRankMultivariateNormal)


def into_unit_scale(guide: Any, joint: LogJoint, local: bool, seed: int) -> Callable[[], None] | None:
    """Start a guide at a normal fitted at fixed draws, in whose coordinates its parameters are from now on.

    Returns
    -------
    callable or None
        Writes the parameters in the model's own coordinates; to be called after the last step. None, with the guide
        left as it was, if it is of another kind, the model has parameters, or sites in plates though not ``local``,
        there are more than `MAX_DENSE` latent numbers or `MAX_SIZE` in the data, or no such normal is found.
    """
    model = nodes(joint.prototype)
    if size_of(joint.data) > MAX_SIZE or any(site["type"] == "param" for site in model.values()):
        return None
    if not local and any(model[name]["cond_indep_stack"] for name in joint.latent):
        return None
    if isinstance(guide, AutoGuide) and guide.prototype_trace is None:
        guide(*joint.data)
    is_dense = _ends_with_triangle(guide)
    if not (is_dense or type(guide) in DIAGONAL):
        return None
    sites = {name: site for name, site in guide.prototype_trace.iter_stochastic_nodes()}
    potential = Potential(joint)
    if set(sites) != set(potential.transforms):
        return None
    at = potential.unconstrained({name: site["value"] for name, site in sites.items()})
    potential.transforms = {name: potential.transforms[name] for name in sites}  # in the guide's order
    energy, _ = finite_energy(potential, at)
    if sum(value.numel() for value in at.values()) > MAX_DENSE or not bool(torch.isfinite(energy)):
        return None
    found = _fitted(Batched(potential, at, size_of(joint.data)), is_dense, seed)
    if found is None:
        return None
    like = next(guide.parameters())
    coordinates = Coordinates(found.centre.to(like), found.root.to(like))
    return relative_to(guide, coordinates, {name: value.shape for name, value in at.items()})


def relative_to(guide: Any, coordinates: Coordinates, shapes: dict[str, torch.Size]) -> Callable[[], None]:
    """Have a guide's parameters be relative to a normal, at which it starts; return what ends that.

    ``shapes`` are those of the unconstrained latent sites, in the guide's order.
    """
    if isinstance(guide, AutoNormal):
        return _relative_sites(guide, coordinates, shapes)
    return _relative_vector(guide, coordinates)


def _fitted(batched: Batched, is_dense: bool, seed: int) -> Coordinates | None:
    """Return the normal of least loss at fixed draws: any, or an independent one."""
    start, _ = start_at_mode(batched, batched.start)
    if not is_dense:
        root = torch.linalg.solve_triangular(start.root, torch.eye(batched.dim).to(start.root), upper=False)
        start = Coordinates(start.centre, root.square().sum(0).rsqrt())
    count = max(MIN_DRAWS, 1 << (2 * batched.dim + 1).bit_length() if is_dense else 0)
    noise = balanced_normals(count, batched.dim, seed).to(start.centre)
    found = fit_normal(batched, start, noise, full=is_dense).coordinates
    return found if all(bool(torch.isfinite(value).all()) for value in (found.centre, found.root)) else None


def _ends_with_triangle(guide: Any) -> bool:
    if not isinstance(guide, AutoContinuous) or not all(
        hasattr(guide, name) for name in ("loc", "scale", "scale_tril")
    ):
        return False
    transform = guide.get_transform()
    last = transform.parts[-1] if isinstance(transform, ComposeTransform) else transform
    return isinstance(last, LowerCholeskyAffine) and last.loc is guide.loc


def _relative_sites(guide: AutoNormal, coordinates: Coordinates, shapes: dict[str, torch.Size]) -> Callable[[], None]:
    centres, roots = as_sites(coordinates.centre, shapes), as_sites(coordinates.root, shapes)
    plain = guide._get_loc_and_scale

    def relative(name: str) -> tuple[Tensor, Tensor]:
        loc, scale = plain(name)
        return centres[name] + roots[name] * loc, roots[name] * scale

    def write(name: str, loc: Tensor, scale: Tensor) -> None:
        deep_setattr(guide.locs, name, loc)
        deep_setattr(guide.scales, name, scale)

    @torch.no_grad()
    def fold() -> None:
        found = {name: relative(name) for name in centres}
        del guide._get_loc_and_scale
        for name, (loc, scale) in found.items():
            write(name, loc, scale)

    for name, centre in centres.items():
        write(name, torch.zeros_like(centre), torch.ones_like(centre))
    guide._get_loc_and_scale = relative
    return fold


def _relative_vector(guide: Any, coordinates: Coordinates) -> Callable[[], None]:
    centre, root = coordinates.centre, coordinates.root
    plain = guide.get_posterior

    def relative(*args: Any) -> TransformedDistribution:
        if coordinates.is_dense:
            outer = LowerCholeskyAffine(centre, root, cache_size=1)
        else:
            outer = AffineTransform(centre, root, event_dim=1, cache_size=1)
        return TransformedDistribution(plain(*args), [outer])

    @torch.no_grad()
    def fold() -> None:
        del guide.get_posterior
        guide.loc.copy_(coordinates.points(guide.loc[None])[0])
        if not coordinates.is_dense:
            guide.scale = root * guide.scale
            return
        triangle = root @ (guide.scale[:, None] * guide.scale_tril)
        guide.scale = triangle.diagonal().clone()
        guide.scale_tril = triangle / triangle.diagonal()[:, None]

    with torch.no_grad():
        guide.loc.zero_()
        guide.scale = torch.ones_like(centre)
        if coordinates.is_dense:
            guide.scale_tril = torch.eye(len(centre)).to(centre)
    guide.get_posterior = relative
    return fold
