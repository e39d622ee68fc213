"""What must change nothing, or by a known amount: order of rows, columns and labels, rotations, units, batches.

Parameters are drawn from each model's prior, given data of random shape; what is asserted holds at any of them.
"""

import math
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro import poutine
from torch import Tensor

from guidebook.models import factor_analysis, gmm, lda, linear, logistic, mixture, ppca

Sites = dict[str, Tensor]
normal = partial(torch.randn, dtype=torch.float64)


class Drawn(NamedTuple):
    """A model's data, and parameters from its prior."""

    module: ModuleType
    args: tuple[Tensor, ...]
    sites: Sites

    def score(self, args: tuple[Tensor, ...] | None = None, sites: Sites | None = None) -> Tensor:
        return self.module.log_likelihood(self.sites if sites is None else sites, *(args or self.args))


def _drawn(name: str, n: int, d: int, seed: int) -> Drawn:
    torch.manual_seed(seed)
    x, counts = normal(n, d), torch.poisson(torch.full((n, d), 2.0, dtype=torch.float64)) + 1
    module, args, options = {
        "gmm": (gmm, (x,), {"num_components": 2}),
        "gmm, tied": (gmm, (x,), {"num_components": 2, "covariance": "tied"}),
        "mixture": (mixture, (counts,), {"num_components": 3}),
        "lda": (lda, (counts,), {"num_topics": 3}),
        "ppca": (ppca, (x,), {"latent_dim": 2}),
        "factor_analysis": (factor_analysis, (x,), {"latent_dim": 2}),
        "logistic": (logistic, (x, (normal(n) > 0).double()), {}),
        "linear": (linear, (x, normal(n)), {}),
    }[name]
    trace = poutine.trace(module.model).get_trace(*args, **options)
    sites = {site: node["value"] for site, node in trace.nodes.items() if node["type"] == "sample"}
    return Drawn(module, args, {site: value for site, value in sites.items() if isinstance(value, Tensor)})


def _weights(s: Sites, order: Tensor) -> Sites:
    return {"w": torch.cat([s["w"][:1], s["w"][1:][order]])}


IN_COLUMNS: dict[str, Callable[[Sites, Tensor], Sites]] = {
    "gmm": lambda s, o: {"loc": s["loc"][:, o], "covariance": s["covariance"][..., o, :][..., o]},
    "mixture": lambda s, o: {"rate": s["rate"][:, o]},
    "lda": lambda s, o: {"topic_words": s["topic_words"][:, o]},
    "ppca": lambda s, o: {"W": s["W"][o], "loc": s["loc"][o]},
    "factor_analysis": lambda s, o: {name: s[name][o] for name in ("W", "loc", "noise_variance")},
    "logistic": _weights,
    "linear": _weights,
}
IN_LABELS: dict[str, Callable[[Sites], Sites]] = {
    "gmm": lambda s: {name: s[name].flip(0) for name in ("weights", "loc", "covariance")},
    "mixture": lambda s: {name: s[name].flip(0) for name in ("weights", "rate")},
    "lda": lambda s: {"topic_words": s["topic_words"].flip(0), "topic_weights": s["topic_weights"].flip(1)},
}


def _linear_units(s: Sites, a: Tensor, b: Tensor) -> Tensor:
    slopes = s["w"][1:] / a
    return torch.cat([(s["w"][0] - slopes @ b)[None], slopes])


IN_UNITS: dict[str, Callable[[Sites, Tensor, Tensor], tuple[Sites, Any]]] = {  # x → a x + b: sites, change in nats
    "gmm": lambda s, a, b: (
        {"loc": s["loc"] * a + b, "covariance": s["covariance"] * a * a[:, None]},
        -a.log().sum(),
    ),
    "factor_analysis": lambda s, a, b: (
        {"W": s["W"] * a[:, None], "loc": s["loc"] * a + b, "noise_variance": s["noise_variance"] * a**2},
        -a.log().sum(),
    ),
    "logistic": lambda s, a, b: ({"w": _linear_units(s, a, b)}, 0.0),
    "linear": lambda s, a, b: ({"w": _linear_units(s, a, b)}, 0.0),
}

sizes = {"n": st.integers(8, 16), "d": st.integers(3, 5), "seed": st.integers(0, 2**31)}
any_data = settings(max_examples=20, deadline=None, derandomize=True)
models = pytest.mark.parametrize("name", ["gmm", *list(IN_COLUMNS)[1:], "gmm, tied"])


@models
@given(**sizes)
@any_data
def test_rows_in_another_order_are_scored_likewise(name: str, n: int, d: int, seed: int) -> None:
    drawn = _drawn(name, n, d, seed)
    order = torch.randperm(n)
    sites = dict(drawn.sites)
    if "topic_weights" in sites:
        sites["topic_weights"] = sites["topic_weights"][order]
    torch.testing.assert_close(drawn.score(tuple(a[order] for a in drawn.args), sites), drawn.score()[order])


@models
@given(**sizes)
@any_data
def test_columns_in_another_order_are_scored_likewise(name: str, n: int, d: int, seed: int) -> None:
    drawn = _drawn(name, n, d, seed)
    order = torch.randperm(d)
    moved = drawn.sites | IN_COLUMNS[name.removesuffix(", tied")](drawn.sites, order)
    torch.testing.assert_close(drawn.score((drawn.args[0][:, order], *drawn.args[1:]), moved), drawn.score())


@pytest.mark.parametrize("name", IN_LABELS)
@given(**sizes)
@any_data
def test_labels_say_nothing(name: str, n: int, d: int, seed: int) -> None:
    drawn = _drawn(name, n, d, seed)
    torch.testing.assert_close(drawn.score(sites=drawn.sites | IN_LABELS[name](drawn.sites)), drawn.score())


@pytest.mark.parametrize("name", ["ppca", "factor_analysis"])
@given(**sizes)
@any_data
def test_a_rotation_of_the_factors_says_nothing(name: str, n: int, d: int, seed: int) -> None:
    drawn = _drawn(name, n, d, seed)
    rotation = torch.linalg.qr(normal(2, 2))[0]
    turned = drawn.sites | {"W": drawn.sites["W"] @ rotation}
    torch.testing.assert_close(drawn.score(sites=turned), drawn.score())


@pytest.mark.parametrize("name", IN_UNITS)
@given(**sizes, exponent=st.floats(-6, 6))
@any_data
def test_units_and_origins_of_the_columns(name: str, n: int, d: int, seed: int, exponent: float) -> None:
    """The density of data in units a times as small is lower by log a; that of labels is the same."""
    drawn = _drawn(name, n, d, seed)
    a = 10.0 ** (exponent * torch.rand(d, dtype=torch.float64))
    b = 100 * a * normal(d)
    sites, change = IN_UNITS[name](drawn.sites, a, b)
    moved = drawn.score((drawn.args[0] * a + b, *drawn.args[1:]), drawn.sites | sites)
    torch.testing.assert_close(moved, drawn.score() + change, rtol=1e-7, atol=1e-7)


@given(**sizes, exponent=st.floats(-6, 6))
@any_data
def test_one_unit_for_all_columns_of_ppca(n: int, d: int, seed: int, exponent: float) -> None:
    drawn, a = _drawn("ppca", n, d, seed), 10.0**exponent
    sites = {"W": a * drawn.sites["W"], "loc": a * drawn.sites["loc"]}
    moved = drawn.score((a * drawn.args[0],), sites | {"noise_variance": a**2 * drawn.sites["noise_variance"]})
    torch.testing.assert_close(moved, drawn.score() - d * math.log(a), rtol=1e-7, atol=1e-7)


@given(**sizes, exponent=st.floats(-6, 6))
@any_data
def test_the_unit_of_a_target(n: int, d: int, seed: int, exponent: float) -> None:
    drawn, c = _drawn("linear", n, d, seed), 10.0**exponent
    sites = {"w": c * drawn.sites["w"], "noise_variance": c**2 * drawn.sites["noise_variance"]}
    moved = drawn.score((drawn.args[0], c * drawn.args[1]), drawn.sites | sites)
    torch.testing.assert_close(moved, drawn.score() - math.log(c), rtol=1e-7, atol=1e-7)


@given(**sizes)
@any_data
def test_labels_of_a_regression_change_places_with_the_sign_of_its_weights(n: int, d: int, seed: int) -> None:
    drawn = _drawn("logistic", n, d, seed)
    x, y = drawn.args
    torch.testing.assert_close(drawn.score((x, 1 - y), {"w": -drawn.sites["w"]}), drawn.score())


@models
@given(**sizes)
@any_data
def test_a_batch_of_parameters_is_scored_one_by_one(name: str, n: int, d: int, seed: int) -> None:
    one, other = _drawn(name, n, d, seed), _drawn(name, n, d, seed)
    torch.manual_seed(seed + 1)
    moved = {site: value * torch.rand(()).add(0.5) for site, value in other.sites.items() if "weights" not in site}
    other = other._replace(sites=other.sites | moved)
    if name == "lda":
        other = other._replace(sites=other.sites | {"topic_words": one.sites["topic_words"].flip(0)})
    names = [site for site in one.sites if site not in ("x", "y", "rows")]
    together = {site: torch.stack([one.sites[site], other.sites[site]])[None] for site in names}
    torch.testing.assert_close(one.score(sites=together), torch.stack([one.score(), other.score()])[None])
