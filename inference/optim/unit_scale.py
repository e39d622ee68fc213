"""Autoguides in coordinates in which the posterior has about unit scale, started where a fit at fixed draws ends.

A step of .01 then moves every number by .01 of a posterior standard deviation, whatever the units of data and
parameters. While steps are taken, the parameters of a guide are relative to a normal, x = centre + root z, which
Newton's method and L-BFGS have found; afterwards they are written in the model's own coordinates, without loss, since
each of these families is closed under its maps: with a diagonal root, Pyro's `AutoNormal`, `AutoDiagonalNormal` and
`AutoLowRankMultivariateNormal`; with a triangle, `AutoMultivariateNormal` and flows that end in an affine map.

Giordano, Ingram and Broderick (2024), Black box variational inference with a deterministic objective: faster, more
accurate, and even more black box, JMLR 25.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyro.distributions as dist
import torch
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
from ..traces.potential import Potential, find_start, finite_energy
from ..traces.sites import nodes
from ..traces.vectors import as_sites, as_vector
from .balanced import balanced_normals
from .coordinates import Coordinates
from .many_starts import FITTED_AGAIN, find_optima
from .mode import MAX_DENSE
from .normal import fit_normal
from .rounds import MIN_DRAWS, start_at_mode

MAX_SIZE = 1_000_000  # numbers in the data: more take long to go through for a start
DIAGONAL = (AutoNormal, AutoDiagonalNormal, AutoLowRankMultivariateNormal)


def into_unit_scale(guide: Any, joint: LogJoint, local: bool, seed: int, num_restarts: int = 1) -> "UnitScale | None":
    """Start a guide at a normal fitted at fixed draws, in whose coordinates its parameters are from now on.

    That is the best that ``num_restarts`` starts lead to: the guide's own, and others from torch's generator.

    Returns
    -------
    UnitScale or None
        To be folded after the last step. None, with the guide left as it was, if it is of another kind, the model has
        parameters, or sites in plates though not ``local``, there are more than `MAX_DENSE` latent numbers or
        `MAX_SIZE` in the data, or no such normal is found.
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
    prototype: Any = guide.prototype_trace
    sites: dict[str, Any] = dict(prototype.iter_stochastic_nodes())
    potential = Potential(joint)
    if set(sites) != set(potential.transforms):
        return None
    at = potential.unconstrained({name: site["value"] for name, site in sites.items()})
    potential.transforms = {name: potential.transforms[name] for name in sites}  # in the guide's order
    energy, _ = finite_energy(potential, at)
    if sum(value.numel() for value in at.values()) > MAX_DENSE or not bool(torch.isfinite(energy)):
        return None
    others = (as_vector(find_start("svi", potential)) for _ in range(num_restarts - 1))
    starts = torch.stack([as_vector(at), *others])
    found, words = _fitted(Batched(potential, at, size_of(joint.data)), starts, is_dense, seed)
    if found is None:
        return None
    like = next(guide.parameters())
    coordinates = Coordinates(found.centre.to(like), found.root.to(like))
    return UnitScale(guide, coordinates, {name: value.shape for name, value in at.items()}, words)


class UnitScale:
    """A guide whose parameters are relative to a normal, at which it starts, until `fold` is called.

    ``shapes`` are those of the unconstrained latent sites, in the guide's order; ``words`` say how the normal was
    chosen, if it was.
    """

    def __init__(self, guide: Any, coordinates: Coordinates, shapes: dict[str, torch.Size], words: str = "") -> None:
        self.words = words
        kind = _Sites if isinstance(guide, AutoNormal) else _Vector
        self._guide, self._relative = guide, kind(guide, coordinates, shapes)
        with torch.no_grad():
            self._relative.begin()
        self._relative.install()

    @torch.no_grad()
    def fold(self) -> None:
        """Write the parameters in the model's own coordinates: the same distribution."""
        self._relative.fold()

    @contextmanager
    def natural(self) -> Iterator[None]:
        """Have the parameters in the model's own coordinates for a while."""
        relative = [p.detach().clone() for p in self._guide.parameters()]
        self.fold()
        try:
            yield
        finally:
            with torch.no_grad():
                for p, value in zip(self._guide.parameters(), relative, strict=True):
                    p.copy_(value)
            self._relative.install()


def _fitted(batched: Batched, starts: Tensor, is_dense: bool, seed: int) -> tuple[Coordinates | None, str]:
    """Return the normal of least loss at fixed draws, any or an independent one, and how it was chosen."""
    if len(starts) == 1:
        firsts, words = [start_at_mode(batched, starts[0])[0]], ""
    else:
        optima = find_optima(batched, starts)
        firsts = [one.first for one in optima[:FITTED_AGAIN]]
        found = "one optimum" if len(optima) == 1 else f"{len(optima)} optima, of which the best was taken"
        words = f"{len(starts)} starts led to {found}"
    count = max(MIN_DRAWS, 1 << (2 * batched.dim + 1).bit_length() if is_dense else 0)
    noise = balanced_normals(count, batched.dim, seed).to(starts)
    fits = [fit_normal(batched, one if is_dense else _independent(one), noise, full=is_dense) for one in firsts]
    best = min(fits, key=lambda fit: fit.loss).coordinates
    is_finite = all(bool(torch.isfinite(value).all()) for value in (best.centre, best.root))
    return (best if is_finite else None), words


def _independent(normal: Coordinates) -> Coordinates:
    """Return the independent normal that is nearest to a dense one, by the divergence that SVI minimises."""
    root = torch.linalg.solve_triangular(normal.root, torch.eye(len(normal.root)).to(normal.root), upper=False)
    return Coordinates(normal.centre, root.square().sum(0).rsqrt())


def _ends_with_triangle(guide: Any) -> bool:
    if not isinstance(guide, AutoContinuous) or not all(
        hasattr(guide, name) for name in ("loc", "scale", "scale_tril")
    ):
        return False
    transform = guide.get_transform()
    last = transform.parts[-1] if isinstance(transform, ComposeTransform) else transform
    return isinstance(last, LowerCholeskyAffine) and last.loc is guide.loc


class _Sites:
    """Pyro's `AutoNormal`, which has parameters by site."""

    def __init__(self, guide: Any, coordinates: Coordinates, shapes: dict[str, torch.Size]) -> None:
        self.guide = guide
        self.centres, self.roots = as_sites(coordinates.centre, shapes), as_sites(coordinates.root, shapes)

    def begin(self) -> None:
        for name, centre in self.centres.items():
            self._write(name, torch.zeros_like(centre), torch.ones_like(centre))

    def install(self) -> None:
        plain = self.guide._get_loc_and_scale

        def relative(name: str) -> tuple[Tensor, Tensor]:
            loc, scale = plain(name)
            return self.centres[name] + self.roots[name] * loc, self.roots[name] * scale

        self.guide._get_loc_and_scale = relative

    def fold(self) -> None:
        found = {name: self.guide._get_loc_and_scale(name) for name in self.centres}
        del self.guide._get_loc_and_scale
        for name, (loc, scale) in found.items():
            self._write(name, loc, scale)

    def _write(self, name: str, loc: Tensor, scale: Tensor) -> None:
        deep_setattr(self.guide.locs, name, loc)
        deep_setattr(self.guide.scales, name, scale)


class _Vector:
    """One of Pyro's guides of the vector of all latent numbers."""

    def __init__(self, guide: Any, coordinates: Coordinates, shapes: dict[str, torch.Size]) -> None:
        self.guide, self.coordinates = guide, coordinates

    def begin(self) -> None:
        self.guide.loc.zero_()
        self.guide.scale = torch.ones_like(self.coordinates.centre)
        if self.coordinates.is_dense:
            self.guide.scale_tril = torch.eye(len(self.coordinates.centre)).to(self.coordinates.centre)

    def install(self) -> None:
        centre, root = self.coordinates.centre, self.coordinates.root
        plain = self.guide.get_posterior

        def relative(*args: Any) -> Any:
            if self.coordinates.is_dense:
                outer = LowerCholeskyAffine(centre, root, cache_size=1)
            else:
                outer = AffineTransform(centre, root, event_dim=1, cache_size=1)
            return dist.TransformedDistribution(plain(*args), [outer])

        self.guide.get_posterior = relative

    def fold(self) -> None:
        guide, root = self.guide, self.coordinates.root
        del guide.get_posterior
        guide.loc.copy_(self.coordinates.points(guide.loc[None])[0])
        if not self.coordinates.is_dense:
            guide.scale = root * guide.scale
            return
        triangle = root @ (guide.scale[:, None] * guide.scale_tril)
        guide.scale = triangle.diagonal().clone()
        guide.scale_tril = triangle / triangle.diagonal()[:, None]
