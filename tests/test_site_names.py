"""Sites by name: slashes as Pyro's scope makes them, in every method; and which sites are compared."""

from functools import partial
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.contrib.autoname import scope
from torch import Tensor

from guidebook.guides import flow, full_rank, laplace, map_point, mean_field
from guidebook.inference import Posterior, apply_guide, check, compare, dadvi, fit, nuts, pathfinder, svi
from guidebook.report import plot_comparison, write_html

X = torch.randn(30, generator=torch.Generator().manual_seed(0)).double()
quiet: dict[str, Any] = {"progress": False}


@scope(prefix="layer")
def weights() -> Tensor:
    w = pyro.sample("w", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
    pyro.deterministic("total", w.sum(-1))
    return w


def scoped(x: Tensor) -> None:
    w, sd = weights(), pyro.sample("sd", dist.LogNormal(x.new_tensor(0.0), 1.0))
    with scope(prefix="data"), pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(w.sum(-1), sd), obs=x)


NAMES = {"layer/w", "layer/total", "sd"}
steps = partial(svi, scoped, num_steps=20, num_draws=200, engine="eager", **quiet)
METHODS: dict[str, Any] = {
    "dadvi": lambda: dadvi(scoped, X, **quiet),
    "dadvi, guide": lambda: dadvi(scoped, X, guide=mean_field, num_draws=64, **quiet),
    "pathfinder": lambda: pathfinder(scoped, X, **quiet),
    "laplace": lambda: svi(scoped, laplace, X, **quiet),
    "nuts": lambda: nuts(scoped, X, num_draws=30, num_warmup=30, num_chains=2, engine="pyro", **quiet),
    **{family.__name__: partial(steps, family, X) for family in (mean_field, full_rank, flow, map_point)},
}


@pytest.mark.filterwarnings("ignore:.*have not mixed")
@pytest.mark.parametrize("method", METHODS)
def test_slashes_in_names_are_taken(method: str, tmp_path: Path) -> None:
    found = METHODS[method]()
    assert set(found.draws) == NAMES
    found.save(tmp_path / "fit")
    again = Posterior.load(tmp_path / "fit")
    assert set(again.draws) == NAMES
    assert set(again.params) == set(found.params)
    if found.info.r_hat:
        assert set(again.info.r_hat) == NAMES


def test_slashes_are_judged_compared_and_drawn(tmp_path: Path) -> None:
    one, other = dadvi(scoped, X, **quiet), pathfinder(scoped, X, num_draws=4000, **quiet)
    assert {"layer/w[0]", "layer/total"} <= set(check(one, scoped, X, **quiet).quantities)
    found = compare(one, other, names=["one", "other"])
    assert set(found.quantities["other"].index) == {"layer/w[0]", "layer/w[1]", "layer/total", "sd"}
    write_html(found, tmp_path / "report.html", model=scoped, data=(X,))
    assert "layer/w" in (tmp_path / "report.html").read_text()
    assert plot_comparison(found) is not None
    started = steps(full_rank, X, init=one)
    assert apply_guide(started, scoped, full_rank, X[:4], num_draws=10).draws["layer/w"].shape == (1, 10, 2)


# Which sites are compared


def regression(x: Tensor, y: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(x.new_tensor(0.0), 1.0))
    pyro.deterministic("fitted", w * x)
    pyro.deterministic("double", 2 * w)
    with pyro.plate("rows", len(x)):
        pyro.deterministic("residual", y - w * x)
        pyro.sample("y", dist.Normal(w * x, 1.0), obs=y)


Y = 0.5 * X
BY_ROW = ["fitted", "residual"]


def test_deterministic_sites_with_a_value_per_row_are_left_out() -> None:
    fits = [dadvi(regression, X, Y, **quiet), pathfinder(regression, X, Y, **quiet)]
    chains = nuts(regression, X, Y, num_draws=500, num_warmup=200, num_chains=2, engine="pyro", **quiet)
    assert all(sorted(one.info.per_row) == BY_ROW for one in (*fits, chains))
    assert sorted(svi(regression, laplace, X, Y, **quiet).info.per_row) == BY_ROW
    assert sorted(fit(regression, X, Y, **quiet).info.per_row) == BY_ROW
    found = compare(*fits)
    assert list(found.quantities["pathfinder"].index) == ["w", "double"]
    assert "fitted, residual are left out, which have a value per row: quantities= chooses." in str(found)
    assert "are left out" in found._repr_html_()
    judged = check(fits[0], regression, X, Y, **quiet)
    assert set(judged.quantities) == {"w", "double"}
    assert "left out" in judged.sentence
    assert sorted(judged.improved.info.per_row) == BY_ROW


def test_quantities_are_chosen_by_name() -> None:
    fits = [dadvi(regression, X, Y, **quiet), pathfinder(regression, X, Y, **quiet)]
    found = compare(*fits, quantities=["fitted", "w"])
    assert len(found.quantities["pathfinder"]) == len(X) + 1
    assert not found.left_out
    assert set(check(fits[0], regression, X, Y, quantities=["double"], **quiet).quantities) == {"double"}
    for judge in (partial(compare, *fits), partial(check, fits[0], regression, X, Y, **quiet)):
        with pytest.raises(ValueError, match=r"quantities has 'slope', and the draws have "):
            judge(quantities=["slope"])


def test_sites_per_row_stay_where_rows_have_latent_sites() -> None:
    """As in a hierarchical model: there the deterministic site is what one asks for."""

    def schools(x: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(x.new_tensor(0.0), 1.0))
        with pyro.plate("schools", len(x)):
            raw = pyro.sample("raw", dist.Normal(x.new_tensor(0.0), 1.0))
            pyro.deterministic("theta", mu + raw)
            pyro.sample("x", dist.Normal(mu + raw, 1.0), obs=x)

    assert dadvi(schools, X[:4], **quiet).info.per_row == []

    def only(x: Tensor, y: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(x.new_zeros(len(x)), 1.0).to_event(1))  # as many coefficients as rows
        pyro.deterministic("square", w**2)
        pyro.sample("y", dist.Normal(w, 1.0).to_event(1), obs=y)

    assert dadvi(only, X[:4], Y[:4], **quiet).info.per_row == []
