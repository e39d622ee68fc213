"""Metrics (mass matrices) of Hamiltonian samplers: one fitted to draws and gradients, and which form to take.

For a normal posterior with covariance Σ the gradients have covariance Σ⁻¹, and the Σ that maps one covariance to the
other is exact as soon as there are more draws than dimensions. For others it is the linear map that brings the
gradients closest to those of a standard normal, in Fisher divergence.

A dense metric is worth having where it leaves draws, other than those it was fitted to, better conditioned than a
diagonal one. And where trajectories turn back in it before they have crossed the posterior, because curvature varies
and no linear map removes that, a diagonal metric is tried, whose smaller steps and longer trajectories may cross, at
several times as many gradients per draw.

Seyboldt, Carlson and Carpenter (2026), Preconditioning Hamiltonian Monte Carlo by minimizing Fisher divergence.
"""

from typing import Any, NamedTuple

import numpy as np
import torch

from ..diagnostics import ess

MAX_DENSE = 100  # latent dimensions up to which a full mass matrix is adapted by default
RIDGE = 1e-2  # added to both covariances, in units that make their diagonals equal
LEAST_GAIN = 1.25  # in conditioning, from which a dense metric is taken
LEAST_HALF = 10  # draws per half of a window from which that is judged
SLOW = 0.25  # effective draws per draw below which the dense metric is doubted


class Window(NamedTuple):
    """Unconstrained positions in a window of warm-up, and the gradients there, both (chain, draw, d)."""

    positions: np.ndarray
    gradients: np.ndarray

    def part(self, begin: int, end: int) -> "Window":
        """Return some of its draws."""
        return Window(self.positions[:, begin:end], self.gradients[:, begin:end])

    def covariances(self) -> tuple[np.ndarray, np.ndarray]:
        """Return those of positions and of gradients within chains, (d, d)."""
        return _within(self.positions), _within(self.gradients)


def is_dense(dense_mass: bool | None, dimensions: int) -> bool:
    """Return whether to adapt a full mass matrix: as told, or else for up to `MAX_DENSE` dimensions."""
    return dimensions <= MAX_DENSE if dense_mass is None else dense_mass


def conditioning_gain(window: Window) -> float:
    """Return how much better conditioned the second half is in a dense metric of the first than in a diagonal one.

    The condition number counted is the ratio of the longest scale, of the positions, to the shortest, of the gradients:
    about the number of steps of a trajectory. Infinity if it cannot be told: draws are too few, or chains stuck.
    """
    half = window.positions.shape[1] // 2
    if half < LEAST_HALF:
        return np.inf
    positions, gradients = window.part(0, half).covariances()
    held_out = window.part(half, 2 * half).covariances()
    if not all((np.diagonal(each) > 0).all() for each in (positions, gradients, *held_out)):
        return np.inf
    scale = diagonal_metric(window.part(0, half))
    root = np.sqrt(scale)
    dense = metric(positions / root / root[:, None], gradients * root * root[:, None], np)
    factors = np.diag(root), root[:, None] * np.linalg.cholesky((dense + dense.T) / 2)
    diagonal, full = (_condition(*held_out, factor) for factor in factors)
    return diagonal / full


def diagonal_metric(window: Window) -> np.ndarray:
    """Return the diagonal inverse mass matrix of least Fisher divergence, (d)."""
    variances = [np.maximum(np.diagonal(each), np.finfo(float).tiny) for each in window.covariances()]
    return np.sqrt(variances[0] / variances[1])


def effective_share(window: Window) -> float:
    """Return the effective draws per draw of the slowest coordinate, within chains."""
    chains, length, _ = window.positions.shape
    sizes = torch.stack([ess(torch.from_numpy(chain)[None]) for chain in window.positions.astype(float)])
    return float((sizes.nan_to_num(0.0).sum(0) / (chains * length)).min())


def metric(positions: Any, gradients: Any, lib: Any) -> Any:
    """Return the Σ with Σ G Σ = C, for covariances C of positions and G of gradients, in NumPy or its like."""
    scale = (lib.diagonal(positions) / lib.diagonal(gradients)) ** 0.25
    ridge = RIDGE * lib.eye(len(scale))
    root, inverse = _roots(gradients * scale * scale[:, None] + ridge, lib)
    middle, _ = _roots(root @ (positions / scale / scale[:, None] + ridge) @ root, lib)
    return (inverse @ middle @ inverse) * scale * scale[:, None]


def _roots(matrix: Any, lib: Any) -> tuple[Any, Any]:
    """Return the square root of a positive definite matrix, and its inverse."""
    values, vectors = lib.linalg.eigh(matrix)
    roots = lib.sqrt(lib.maximum(values, lib.finfo(values.dtype).tiny))
    return (vectors * roots) @ vectors.T, (vectors / roots) @ vectors.T


def _within(draws: np.ndarray) -> np.ndarray:
    centred = (draws - draws.mean(1, keepdims=True)).astype(float).reshape(-1, draws.shape[-1])
    return centred.T @ centred / (len(centred) - len(draws))


def _condition(positions: np.ndarray, gradients: np.ndarray, factor: np.ndarray) -> float:
    """Return the conditioning that covariances have in coordinates whitened by a factor of the inverse mass matrix."""
    inverse = np.linalg.inv(factor)
    longest = np.linalg.eigvalsh(inverse @ positions @ inverse.T)[-1]
    shortest = np.linalg.eigvalsh(factor.T @ gradients @ factor)[-1]
    return float(np.sqrt(longest * shortest))
