"""``guidebook choose --folds`` for a user's own model: densities of held-out rows against closed forms."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from guidebook.workflow.choose import choose, plan

SOURCE = """
import pyro
import pyro.distributions as dist
import torch


def line(x, y=None, *, scale=1.0):
    w = pyro.sample("w", dist.Normal(0.0, scale).expand([x.shape[1]]).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal((x * w[..., None, :]).sum(-1), 0.7), obs=y)


def schools(sd, y=None, *, spread=2.0):
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    with pyro.plate("schools", len(sd)):
        theta = pyro.sample("theta", dist.Normal(mu, spread))
        pyro.sample("y", dist.Normal(theta, sd), obs=y)


def cities(level, city, y=None, *, scale=3.0):
    b = pyro.sample("b", dist.Normal(0.0, scale))
    with pyro.plate("cities", len(level)):
        a = pyro.sample("a", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(city)):
        pyro.sample("y", dist.Normal((a + b * level)[..., city], 0.5), obs=y)


def halves(x, y=None, *, share=0.25):
    a = pyro.sample("a", dist.Normal(0.0, 3.0))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Bernoulli(share))
        pyro.sample("y", dist.Normal(a * x + 3 * z, 1.0), obs=y)


def two(x, y, z, *, scale=1.0):
    a = pyro.sample("a", dist.Normal(0.0, scale))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(a * x, 1.0), obs=y)
    with pyro.plate("others", len(z)):
        pyro.sample("z", dist.Normal(a, 1.0), obs=z)


def steps(y, *, scale=1.0):
    a = pyro.sample("a", dist.Normal(0.0, scale))
    for t in range(len(y)):
        pyro.sample(f"y_{t}", dist.Normal(a, 1.0), obs=y[t])
"""
N, FOLDS = 24, 4


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(SOURCE)
    return tmp_path


def _held_out(model: str, *settings: str) -> dict[str, np.ndarray]:
    """Densities of held-out rows by dadvi, which is exact for normals, by value of the option, and each row's fold."""
    made = plan(f"mine.py:{model}", settings, method="dadvi", data="data.npz", folds=FOLDS, draws=4000)
    found = choose(made)
    assert made.folds is not None
    return {"fold": made.folds} | {str(value): score.pointwise for value, score in found.scores.items()}


def _normal(x: np.ndarray, y: np.ndarray, noise: np.ndarray, prior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of weights with independent normal priors of these sds."""
    covariance = np.linalg.inv((x / noise[:, None] ** 2).T @ x + np.diag(prior**-2.0))
    return covariance @ (x.T @ (y / noise**2)), covariance


def _expected(x: np.ndarray, y: np.ndarray, noise: np.ndarray, prior: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Log density of each row of a normal regression under the posterior of all rows in other folds."""
    found = np.empty(len(y))
    for k in range(FOLDS):
        out = fold == k
        mean, covariance = _normal(x[~out], y[~out], noise[~out], prior)
        spread = np.sqrt(np.einsum("ij,jk,ik->i", x[out], covariance, x[out]) + noise[out] ** 2)
        found[out] = norm.logpdf(y[out], x[out] @ mean, spread)
    return found


def test_rows_of_a_regression(here: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 2))
    y = x @ [1.5, -1.0] + 0.7 * rng.normal(size=N)
    np.savez("data.npz", x=x, y=y)
    found = _held_out("line", "scale=0.1,2")
    for value in (0.1, 2.0):
        expected = _expected(x, y, np.full(N, 0.7), np.full(2, value), found["fold"])
        np.testing.assert_allclose(found[str(value)], expected, atol=0.1)


def test_effects_of_held_out_rows_come_from_their_prior(here: Path) -> None:
    """Each row has a latent site: summed out by hand, that is noise of variance spread² + sd²."""
    rng = np.random.default_rng(1)
    sd = rng.uniform(0.5, 1.5, N)
    y = 3 + 2 * rng.normal(size=N) + sd * rng.normal(size=N)
    np.savez("data.npz", sd=sd, y=y)
    found = _held_out("schools", "spread=2,3")
    for value in (2.0, 3.0):
        noise = np.sqrt(sd**2 + value**2)
        expected = _expected(np.ones((N, 1)), y, noise, np.array([5.0]), found["fold"])
        np.testing.assert_allclose(found[str(value)], expected, atol=0.25)


def test_arguments_without_rows_go_along(here: Path) -> None:
    """As many groups as rows, and a group that has rows in one fold only: neither leads astray."""
    rng = np.random.default_rng(2)
    level = rng.normal(size=N)
    city = np.array([0] * (N - 1) + [N - 1])
    y = 2 * level[city] + 0.5 * rng.normal(size=N)
    np.savez("data.npz", level=level, city=city, y=y)
    found = _held_out("cities", "scale=1,3")
    x = np.concatenate([np.eye(N)[city], level[city][:, None]], 1)
    for value in (1.0, 3.0):
        prior = np.append(np.ones(N), value)
        np.testing.assert_allclose(found[str(value)], _expected(x, y, np.full(N, 0.5), prior, found["fold"]), atol=0.25)


def test_discrete_sites_of_held_out_rows_are_summed_out(here: Path) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=N)
    z = rng.uniform(size=N) < 0.25
    y = 2 * x + 3 * z + rng.normal(size=N)
    np.savez("data.npz", x=x, y=y)
    found = _held_out("halves", "share=0.25,0.9")
    grid = np.linspace(-4, 8, 4001)
    for share in (0.25, 0.9):
        each = np.logaddexp(
            np.log(1 - share) + norm.logpdf(y, grid[:, None] * x), np.log(share) + norm.logpdf(y, grid[:, None] * x + 3)
        )
        for k in range(FOLDS):
            out = found["fold"] == k
            weight = norm.logpdf(grid, 0, 3) + each[:, ~out].sum(1)
            weight = np.exp(weight - weight.max())
            expected = np.log(weight @ np.exp(each[:, out]) / weight.sum())
            np.testing.assert_allclose(found[str(share)][out], expected, atol=0.15)


def test_sites_of_one_number_are_rows(here: Path) -> None:
    y = np.random.default_rng(4).normal(size=8)
    np.savez("data.npz", y=y)
    found = _held_out("steps", "scale=0.5,2")
    for value in (0.5, 2.0):
        expected = _expected(np.ones((8, 1)), y, np.ones(8), np.array([value]), found["fold"])
        np.testing.assert_allclose(found[str(value)], expected, atol=0.1)


def test_the_command_says_how_rows_were_held_out_or_why_they_cannot_be(call, here: Path) -> None:
    rng = np.random.default_rng(5)
    np.savez("data.npz", x=rng.normal(size=(N, 2)), y=rng.normal(size=N))
    words = ("--data", "data.npz", "--method", "dadvi", "--folds", FOLDS)
    status, out, err = call("choose", "mine.py:line", *words, "--set", "scale=1,2", "--json", "-")
    assert status == 0, err
    record = json.loads(out)
    assert (record["criterion"], record["rows"]) == ("4-fold cross-validation", N)
    np.savez("data.npz", x=np.ones(3), y=np.ones(3), z=np.ones(2))
    status, _, err = call("choose", "mine.py:two", *words, "--set", "scale=1,2")
    assert (status, err.count("\n")) == (2, 1)
    assert "choose: it is not clear which rows go together: observed sites have shapes y (3,), z (2,)" in err
