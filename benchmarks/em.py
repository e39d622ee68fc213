"""EM, coordinate ascent and closed forms against scikit-learn, double precision."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture

from guidebook import datasets
from guidebook.inference import em
from guidebook.models import factor_analysis, gmm, ppca

from .measure import Record, in_process, peak_memory, record, timed

THEIRS = {"full": "full", "tied": "tied", "diagonal": "diag", "isotropic": "spherical"}
SHAPES = ((100_000, 32, 16), (200_000, 8, 32))
ASKED = {("full", 32): 3.0, ("full", 8): 8.0, ("diagonal", 32): 2.0, ("diagonal", 8): 2.0}


def rows(quick: bool, device: str = "cpu") -> Iterator[Record]:
    repeats = 3 if quick else 7
    where = "" if device == "cpu" else f", CUDA against {torch.get_num_threads()} CPU threads"
    warnings.simplefilter("ignore")
    for kind in ("full", "diagonal") if quick else THEIRS:
        for shape in SHAPES:
            actions = em_iterations(*shape, kind, device)
            ours, theirs = timed(repeats, *actions, device=device)
            memory = None
            if device == "cpu" and not quick:
                sides = (in_process("em:memory", side=side, shape=shape, kind=kind)["mib"] for side in (0, 1))
                memory = next(sides), next(sides)
            yield record(
                "em",
                f"EM iteration, {kind}, {_size(*shape)}{where}",
                "GaussianMixture",
                _ms(ours),
                _ms(theirs),
                "ms",
                asked=ASKED.get((kind, shape[1])),
                memory=memory,
                what="one E-step and one M-step from the same kind of random start",
            )
    for kind in ("full",) if quick else ("full", "diagonal"):
        shape = (100_000, 8, 16)
        ours, theirs = timed(repeats, *cavi_iterations(*shape, kind, device), device=device)
        yield record(
            "em",
            f"CAVI sweep, {kind}, {_size(*shape)}{where}",
            "BayesianGaussianMixture",
            _ms(ours),
            _ms(theirs),
            "ms",
            what="both halves and the bound",
        )
    if device == "cpu":
        yield _small_fit(repeats)
        yield from _factor_models(repeats)


def _size(num: int, dim: int, components: int) -> str:
    return f"{num:,} × {dim}, K={components}"


def _ms(times: list[float]) -> list[float]:
    return [1e3 * value for value in times]


def blobs(num: int, dim: int, components: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(num, dim)) + rng.integers(0, components, size=(num, 1))


def em_iterations(
    num: int, dim: int, components: int, kind: str, device: str = "cpu"
) -> tuple[Callable[[], None], Callable[[], None]]:
    """An iteration of ours and one of scikit-learn's; each goes on where it stopped."""
    data = blobs(num, dim, components)
    x = torch.tensor(data, device=device)
    steps = gmm.em_steps(components, kind)  # pyright: ignore[reportArgumentType]
    torch.manual_seed(0)
    (rows,) = steps.prepare(x)  # once per fit
    state = {"params": steps.init(1, rows)}
    theirs = GaussianMixture(components, covariance_type=THEIRS[kind], init_params="random", random_state=0)
    theirs._initialize_parameters(data, np.random.RandomState(0))

    def ours() -> None:
        with torch.no_grad():
            state["params"] = steps.m_step(steps.e_step(state["params"], rows), rows)

    def peer() -> None:
        _, log_resp = theirs._e_step(data)
        theirs._m_step(data, log_resp)

    return ours, peer


def cavi_iterations(
    num: int, dim: int, components: int, kind: str, device: str = "cpu"
) -> tuple[Callable[[], None], Callable[[], None]]:
    """A sweep of ours and one of scikit-learn's, each with its bound."""
    data = blobs(num, dim, components)
    x = torch.tensor(data, device=device)
    steps = gmm.cavi_steps(components, kind)  # pyright: ignore[reportArgumentType]
    torch.manual_seed(0)
    with torch.no_grad():
        (rows,) = steps.prepare(x)  # once per fit
        state: dict[str, Any] = {"params": steps.init(1, rows)}
    theirs = BayesianGaussianMixture(
        n_components=components,
        covariance_type=THEIRS[kind],
        init_params="random",
        random_state=0,
        weight_concentration_prior_type="dirichlet_distribution",
        max_iter=1,
    ).fit(data)

    def ours() -> None:
        with torch.no_grad():
            expectations = steps.e_step(state["params"], rows)
            steps.objective(state["params"], expectations).item()
            state["params"] = steps.m_step(expectations, rows)

    def peer() -> None:
        log_norm, log_resp = theirs._e_step(data)
        theirs._m_step(data, log_resp)
        theirs._compute_lower_bound(log_resp, log_norm)

    return ours, peer


def memory(side: int, shape: tuple[int, int, int], kind: str) -> dict[str, float]:
    """Peak of two iterations of ours (0) or scikit-learn's (1)."""
    warnings.simplefilter("ignore")
    action = em_iterations(*shape, kind)[side]
    with peak_memory() as peak:
        action()
        action()
    return {"mib": peak.mib}


def _small_fit(repeats: int, restarts: int = 10) -> Record:
    """The size of Old Faithful's data: 272 rows, two columns, two components."""
    rng = np.random.default_rng(0)
    short, long = rng.normal([2.0, 54.0], [0.25, 6.0], (97, 2)), rng.normal([4.3, 80.0], [0.4, 6.0], (175, 2))
    data = np.concatenate([short, long])
    x, tol = torch.tensor(data), 1e-6

    def ours() -> float:
        return em(gmm.em_steps(2), x, num_restarts=restarts, tol=tol).info.log_likelihood

    def peer() -> float:
        fitted = GaussianMixture(2, n_init=restarts, random_state=0, tol=tol / len(x), max_iter=2000).fit(data)
        return float(fitted.score(data)) * len(x)

    mine, theirs = timed(max(repeats, 5), ours, peer)
    return record(
        "em",
        "EM fit, full, 272 × 2, K=2",
        "GaussianMixture",
        _ms(mine),
        _ms(theirs),
        "ms",
        asked=1.0,
        what=f"{restarts} restarts, tolerance {tol:g} nats on both sides; log likelihood {ours():.5f}, "
        f"scikit-learn {peer():.5f}",
    )


def _factor_models(repeats: int) -> Iterator[Record]:
    data = blobs(100_000, 32, 16)
    x = torch.tensor(data)
    mine, theirs = timed(repeats, lambda: ppca.maximum_likelihood(x, 4), lambda: PCA(4, random_state=0).fit(data))
    yield record(
        "em",
        "PPCA, 100,000 × 32, q=4",
        "PCA",
        _ms(mine),
        _ms(theirs),
        "ms",
        asked=1.0,
        what="in closed form; PCA by its default solver, which keeps fewer digits of rows far from 0",
    )
    wine = datasets.load("wine", standardize=True).x

    values = wine.numpy()

    def ours() -> float:
        return em(factor_analysis.em_steps(3), wine, num_restarts=1).info.log_likelihood

    def peer() -> float:
        return float(FactorAnalysis(3, tol=1e-6, max_iter=100_000).fit(values).score(values)) * len(values)

    mine, theirs = timed(repeats, ours, peer)
    yield record(
        "em",
        "factor analysis, wine, q=3",
        "FactorAnalysis",
        _ms(mine),
        _ms(theirs),
        "ms",
        what=f"to tolerance 1e-6, scikit-learn's too; log likelihood {ours():.4f}, scikit-learn {peer():.4f}",
    )
