"""Many short Hamiltonian chains at once, started from draws of an approximation and moved in its own metric.

All chains take the same number of leapfrog steps, so that each is one batch of gradients. Trajectories have a random
length of about π/2, a quarter of the period of a standard normal, after which a chain has forgotten where it began.
Step size and metric are learnt from all chains together, in rounds that are then discarded.

Hoffman and Sountsov (2022), Tuning-free generalized Hamiltonian Monte Carlo, AISTATS: many chains adapted as one; Wang,
Kasprzak and Huggins (2023), A targeted accuracy diagnostic for variational approximations, arXiv 2302.12419; Tran and
Kleppe (2024), Tuning diagonal scale matrices for HMC, arXiv 2403.07495: metrics from draws and gradients.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..engines.batched import Batched

TARGET_ACCEPT, STIFF_ACCEPT = 0.8, 0.9
MAX_LEAPFROGS = 8
LENGTH = math.pi / 2  # mean length of a trajectory, in standard deviations
DENSE_DIM = 500  # latent numbers up to which a metric is a full matrix, if there are draws enough
DRAWS_PER_DIM = 4  # draws per latent number from which a full matrix is known well enough
LARGE_GRADIENT = 10.0  # times the median length: longer ones are shortened before they make a metric
LEAST_STEP = 1e-10
NEARLY_ALL = 0.95  # accepted of steps beyond `LENGTH`: the metric is far too small, and the step is doubled
LEAST_MOVES = 0.3  # of its trajectories that a chain accepts, or is stuck
SMALL_STEPS, SMALLEST_STEP = 0.4, 0.1  # the share of them, and of the usual step at least
LEAST_SPREAD = 1e-10  # of draws in a coordinate, relative to its size


class Metric(NamedTuple):
    """Coordinates z in which the posterior has about unit scale: the unconstrained vector is ``root`` z.

    ``root`` has shape (d, d), or (d) if it is diagonal.
    """

    root: Tensor

    def vectors(self, z: Tensor) -> Tensor:
        """Return vectors (…, d) from coordinates (…, d)."""
        return z @ self.root.T if self.root.dim() == 2 else z * self.root

    def coordinates(self, vectors: Tensor) -> Tensor:
        """Return coordinates (…, d) from vectors (…, d)."""
        if self.root.dim() == 1:
            return vectors / self.root
        return torch.linalg.solve_triangular(self.root, vectors.mT, upper=False).mT

    def gradients(self, of_vectors: Tensor) -> Tensor:
        """Return gradients by coordinates (…, d) from those by vectors (…, d)."""
        return of_vectors @ self.root if self.root.dim() == 2 else of_vectors * self.root


class States(NamedTuple):
    """What chains passed through: vectors and gradients (nats per unit), shape (trajectory, chain, d)."""

    vectors: Tensor
    gradients: Tensor


def joined(one: States, other: States) -> States:
    """Return states one after another."""
    return States(*(torch.cat(both) for both in zip(one, other, strict=True)))


def first_step(dim: int) -> float:
    """Return the leapfrog step to begin with for so many latent numbers, in coordinates of unit scale."""
    return 1.1 * dim**-0.25


def stuck(vectors: Tensor) -> Tensor:
    """Return which chains hardly move, shape (chain), of draws (draw, chain, d)."""
    return (vectors[1:] != vectors[:-1]).any(2).double().mean(0) < LEAST_MOVES


def metric_of_draws(vectors: Tensor) -> Metric:
    """Return the metric of draws (draw, d) by their covariance, or its diagonal where they are few."""
    count, dim = vectors.shape
    scale = torch.maximum(vectors.std(0), LEAST_SPREAD * (1 + vectors.mean(0).abs()))
    if dim > DENSE_DIM or count < DRAWS_PER_DIM * dim:
        return Metric(scale)
    correlation = ((vectors - vectors.mean(0)) / scale).T.cov().reshape(dim, dim)
    return Metric(scale[:, None] * _root(correlation))


def metric_of_states(vectors: Tensor, gradients: Tensor) -> Metric:
    """Return the metric of draws and gradients (draw, d): the geometric mean of a covariance and the other's inverse.

    If the posterior is normal, that is its covariance, whatever the mean and covariance of the draws.
    """
    first = metric_of_draws(vectors)
    slopes = first.gradients(gradients)
    slopes = slopes - slopes.mean(0)
    length = slopes.square().mean(1).sqrt()
    slopes = slopes * (LARGE_GRADIENT * length.median() / length.clamp(min=1e-300)).clamp(max=1)[:, None]
    count, dim = slopes.shape
    fourth = slopes.square().mean(0).clamp(min=1e-300) ** -0.25
    if first.root.dim() == 1:
        return Metric(first.root * fourth)
    if count < DRAWS_PER_DIM * dim:
        return Metric(first.root * fourth.log().mean().exp())
    values, directions = torch.linalg.eigh(slopes.T @ slopes / count)
    inverse_root = (directions * values.clamp(min=float(values[-1]) * 1e-12 + 1e-300) ** -0.5) @ directions.T
    return Metric(_root(first.root @ inverse_root @ first.root.T))


def _root(matrix: Tensor) -> Tensor:
    """Return the Cholesky factor, of the diagonal alone if rounding leaves the matrix without one."""
    root, failed = torch.linalg.cholesky_ex((matrix + matrix.T) / 2)
    return torch.diag(matrix.diagonal().clamp(min=1e-300).sqrt()) if int(failed) else root


class ShortChains:
    """Chains at vectors (chain, d) of the unconstrained scale, which `run` moves.

    Attributes
    ----------
    vectors, gradients : Tensor, shape (chain, d)
        Where the chains are, and the potential's gradients there.
    energy : Tensor, shape (chain)
        In nats; infinite where the potential is not finite.
    metric : Metric
    step : float
        Leapfrog step, in coordinates of the metric.
    accept_rate : float
        Mean acceptance probability of the last trajectories.
    trajectories : int
        So far, of each chain.
    is_stiff : bool
        Whether a chain has been `stuck`, so that steps are smaller, and some much smaller, as suit the place it is in.
    """

    def __init__(self, batched: Batched, vectors: Tensor, metric: Metric, generator: torch.Generator) -> None:
        self.batched, self.vectors, self.metric, self.generator = batched, vectors, metric, generator
        self.energy, self.gradients = batched(vectors)
        self.step, self.accept_rate, self.is_stiff, self.trajectories = first_step(vectors.shape[1]), 1.0, False, 0

    def run(self, trajectories: int, *, adapt: bool = False) -> States:
        """Move every chain by so many trajectories and return the states after each.

        ``adapt`` learns the step size, and lets chains come down from where the density is very low, so that the states
        are draws of nothing.
        """
        vectors, gradients, accepted = [], [], []
        goal = STIFF_ACCEPT if self.is_stiff else TARGET_ACCEPT
        for number in range(trajectories):
            chance = self._move(adapt)
            accepted.append(chance)
            if adapt:
                self.step *= math.exp(max(2.0 / (1 + number), 0.4) * (chance - goal))
                self.step = max(self.step * (2 if self.step > LENGTH and chance > NEARLY_ALL else 1), LEAST_STEP)
            vectors.append(self.vectors)
            gradients.append(self.gradients)
        self.trajectories += trajectories
        self.accept_rate = sum(accepted) / len(accepted)
        states = States(torch.stack(vectors), torch.stack(gradients))
        self.is_stiff = self.is_stiff or bool(stuck(states.vectors).any())
        return states

    def _move(self, adapt: bool) -> float:
        chains, dim = self.vectors.shape
        length = LENGTH * (0.6 + 0.8 * self._uniform(1).item())
        leapfrogs = min(MAX_LEAPFROGS, max(1, round(length / self.step)))
        step = self.step * (0.8 + 0.4 * self._uniform(chains, 1))
        if self.is_stiff:
            small = SMALLEST_STEP ** self._uniform(chains, 1)
            step = torch.where(self._uniform(chains, 1) < SMALL_STEPS, step * small, step)
        momentum = torch.randn(chains, dim, generator=self.generator, dtype=step.dtype).to(self.vectors)
        before = self.energy + 0.5 * momentum.square().sum(1)
        there, energy, gradient = self.vectors, self.energy, self.gradients
        momentum = momentum - 0.5 * step * self.metric.gradients(gradient)
        for leap in range(leapfrogs):
            there = there + self.metric.vectors(step * momentum)
            energy, gradient = self.batched(there)
            momentum = momentum - (step if leap < leapfrogs - 1 else 0.5 * step) * self.metric.gradients(gradient)
        error = energy + 0.5 * momentum.square().sum(1) - before
        if adapt:
            excess = self.energy - self.energy.min()
            error = error / (excess / (4 * dim)).clamp(min=1)
        chance = (-error).clamp(max=0).exp().nan_to_num(0.0)
        taken = self._uniform(chains) < chance
        self.vectors = torch.where(taken[:, None], there, self.vectors)
        self.gradients = torch.where(taken[:, None], gradient, self.gradients)
        self.energy = torch.where(taken, energy, self.energy)
        return float(chance.mean())

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator, dtype=self.vectors.dtype).to(self.vectors.device)
