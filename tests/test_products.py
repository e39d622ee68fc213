"""E-steps of mixtures: against extended precision, chunk by chunk, restarts together, in both types of float."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from guidebook.inference import cavi, em
from guidebook.models import Steps, gmm, mixture
from guidebook.models._shared import responsibilities as products
from guidebook.models.gmm import e_step
from guidebook.models.gmm.covariance import as_matrices, form_of

KINDS = ("full", "tied", "diagonal", "isotropic")
Params = dict[str, torch.Tensor]


def apart(separation: float, kind: str, offset: float = 0.0) -> tuple[torch.Tensor, Params]:
    """Three groups of 60 rows with unit variances and means so far apart; parameters near the truth."""
    rng = np.random.default_rng(0)
    centre = separation * rng.normal(size=(3, 3)) + offset
    x = torch.tensor(np.repeat(centre, 60, 0) + rng.normal(size=(180, 3)))
    matrix = torch.eye(3, dtype=torch.float64) + 0.1
    shape = {"full": matrix.expand(3, 3, 3), "tied": matrix[None], "diagonal": torch.full((3, 3), 1.1).double()}
    sigma = shape.get(kind, torch.full((3,), 1.1).double())
    weights = torch.tensor([0.3, 0.3, 0.4], dtype=torch.float64)
    return x, {"weights": weights, "loc": torch.tensor(centre + 0.2), "covariance": sigma}


def one_step(params: Params, x: torch.Tensor, kind: str) -> tuple[np.longdouble, dict[str, np.ndarray]]:
    """log p(x) and the parameters after one iteration of EM, in 80-bit arithmetic."""
    rows, long = x.numpy().astype(np.longdouble), np.longdouble
    weights, loc = (params[name].numpy().astype(long) for name in ("weights", "loc"))
    matrices = as_matrices(params["covariance"], params["loc"]).expand(3, 3, 3)
    joint = np.empty((len(rows), 3), long)
    for k, sigma in enumerate(matrices.numpy().astype(long)):
        lower = np.zeros_like(sigma)
        for i, j in zip(*np.tril_indices(3), strict=True):
            left = sigma[i, j] - (lower[i, :j] * lower[j, :j]).sum()
            lower[i, j] = np.sqrt(left) if i == j else left / lower[j, j]
        gap, white = (rows - loc[k]).T, np.empty((3, len(rows)), long)
        for i in range(3):
            white[i] = (gap[i] - lower[i, :i] @ white[:i]) / lower[i, i]
        log_det = np.log(np.diag(lower)).sum() + 1.5 * np.log(2 * np.pi * long(1))
        joint[:, k] = np.log(weights[k]) - log_det - 0.5 * (white**2).sum(0)
    top = joint.max(1, keepdims=True)
    norm = top + np.log(np.exp(joint - top).sum(1, keepdims=True))
    shares = np.exp(joint - norm)
    counts = shares.sum(0)
    mean = shares.T @ rows / counts[:, None]
    scatter = np.stack([((rows - m) * r[:, None]).T @ (rows - m) for m, r in zip(mean, shares.T, strict=True)])
    if kind == "tied":
        sigma = scatter.sum(0, keepdims=True) / len(rows)
    else:
        sigma = scatter / counts[:, None, None]
        if kind != "full":
            sigma = np.diagonal(sigma, axis1=1, axis2=2)
        sigma = sigma.mean(1) if kind == "isotropic" else sigma
    return norm.sum(), {"weights": counts / len(rows), "loc": mean, "covariance": sigma}


def errors(kind: str, x: torch.Tensor, params: Params) -> dict[str, float]:
    """Relative errors of one iteration; of means in units of a standard deviation, beyond what float64 can hold."""
    steps = gmm.em_steps(3, kind)
    expectations = steps.e_step(params, x)
    ours = steps.m_step(expectations, x)
    value, exact = one_step(params, x, kind)
    holds = 4 * np.finfo(float).eps * float(x.abs().max())
    return {
        "objective": abs(float(np.longdouble(float(expectations.objective)) / value - 1)),
        "covariance": float(abs(ours["covariance"].numpy() / exact["covariance"] - 1).max())
        if kind in ("diagonal", "isotropic")
        else float(abs(ours["covariance"].numpy() - exact["covariance"]).max()),
        "loc": max(0.0, float(abs(ours["loc"].numpy() - exact["loc"]).max()) - holds),
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("separation", [1.0, 1e2, 1e3, 1e6])
def test_an_iteration_has_all_its_digits_however_far_apart_components_lie(kind: str, separation: float) -> None:
    assert max(errors(kind, *apart(separation, kind)).values()) < 1e-10


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("offset", [1e4, 1e8])
def test_a_far_away_origin_costs_no_digits(kind: str, offset: float) -> None:
    x, params = apart(3.0, kind, offset)
    steps, near = gmm.em_steps(3, kind), gmm.em_steps(3, kind)
    here = params | {"loc": params["loc"] - offset}
    moved = steps.m_step(steps.e_step(params, x), x)
    still = near.m_step(near.e_step(here, x - offset), x - offset)  # the difference is exact
    torch.testing.assert_close(
        moved["covariance"], still["covariance"], rtol=1e-7, atol=1e-7 if offset > 1e6 else 1e-10
    )


@pytest.mark.parametrize("kind", KINDS)
def test_products_serve_near_components_and_distances_far_ones(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the other way was asked for")

    near, far = apart(1.0, kind), apart(1e6, kind)
    monkeypatch.setattr(e_step, "by_distances", refuse)
    errors(kind, *near)
    with pytest.raises(AssertionError, match="other way"):
        errors(kind, *far)


@pytest.mark.parametrize("kind", KINDS)
def test_products_alone_would_lose_digits_there(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(e_step, "_MAX_ROUNDING", 1e9)
    monkeypatch.setattr(e_step, "_MIN_SHARE", -1.0)
    assert max(errors(kind, *apart(1e6, kind)).values()) > 1e-6


def narrow_within_wide(kind: str) -> tuple[torch.Tensor, Params]:
    """Components of sd 1e-5, two of them 20 sd apart rows in doubt between them; all with rows one or two away.

    Those rows keep every scatter wide, so that only the rounding of log densities can tell the two ways apart.
    """
    sd = 1e-5
    loc = torch.tensor([[1.1, 0.3, 0.0], [1.1 + 20 * sd, 0.3, 0.0], [1.1, 10.3, 0.0]], dtype=torch.float64)
    ties = loc[:1].repeat(21, 1)
    ties[:, 0] += (10 + torch.linspace(-0.1, 0.1, 21, dtype=torch.float64)) * sd
    cross = torch.tensor([[-1.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], dtype=torch.float64)
    x = torch.cat([ties, loc[0] + cross[[0, 0, 2, 3, 4, 5]], loc[1] + cross[1:], loc[2] + cross])
    _, params = apart(1.0, kind)
    eye = torch.eye(3, dtype=torch.float64)
    sigma = {"full": eye.expand(3, 3, 3), "tied": eye[None], "diagonal": torch.ones(3, 3), "isotropic": torch.ones(3)}
    return x, params | {"loc": loc, "covariance": sd**2 * sigma[kind].double()}


@pytest.mark.parametrize("kind", KINDS)
def test_rounding_of_a_log_density_counts(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, params = narrow_within_wide(kind)
    assert max(errors(kind, x, params).values()) < 1e-12
    monkeypatch.setattr(e_step, "_MAX_ROUNDING", 1e-2)
    assert errors(kind, x, params)["loc"] > 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_a_component_that_shrinks_a_million_times_in_one_iteration_keeps_its_digits(kind: str) -> None:
    x, params = apart(1e6, kind)
    params["covariance"] = params["covariance"] * 1e8
    params["loc"] = params["loc"] + 2e4
    assert max(errors(kind, x, params).values()) < 1e-8


def test_both_ways_agree_for_every_kind_and_many_restarts() -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(500, 4, generator=rng, dtype=torch.float64)
    for kind in KINDS:
        sigma = 0.5 + torch.rand(2, 3, 4, generator=rng, dtype=torch.float64)
        if kind == "isotropic":
            root = sigma[..., :1]
        else:
            root = sigma if kind == "diagonal" else torch.diag_embed(sigma) + 0.1 * torch.ones(4, 4).tril(-1)
            root = root[:, :1] if kind == "tied" else root
        loc = torch.randn(2, 3, 4, generator=rng, dtype=torch.float64)
        form = form_of(kind)
        components = e_step.Components(torch.zeros(2, 3, dtype=torch.float64), loc, form.inverse(root))
        products_way, accurate = e_step._by_products(components, e_step.prepare(x, 3, kind), form)
        assert products_way is not None
        assert accurate.all()
        distances_way, accurate = e_step.by_distances(components, x, form, loc)
        assert accurate
        torch.testing.assert_close(products_way, distances_way, rtol=1e-11, atol=1e-10)


def test_shares_are_bayes_rule_to_exact_zeros_and_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    theta, features, constant = rng.normal(size=(2, 3, 5)), 100 * rng.normal(size=(5, 50)), rng.normal(size=(2, 3))
    joint = constant[..., None] + theta @ features
    norm = logsumexp(joint, axis=1, keepdims=True)
    shares = np.exp(joint - norm)
    given = torch.tensor(features)
    for size in (50, 7):
        found = products.weighted_sums(torch.tensor(constant), torch.tensor(theta), given.split(size, 1))
        np.testing.assert_allclose(found.log_norm, norm.sum((1, 2)), rtol=1e-13)
        np.testing.assert_allclose(found.counts, shares.sum(-1), rtol=1e-11)
        np.testing.assert_allclose(found.sums, shares @ features.T, rtol=1e-10)
        entropy = products.entropy(found, torch.tensor(constant), torch.tensor(theta))
        logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
        np.testing.assert_allclose(entropy, -(shares * logs).sum((1, 2)), atol=1e-9)
    wide = torch.tensor([[0.0, 1.0, -np.inf], [-599.0, -2000.0, 0.0]], dtype=torch.float64)
    products.normalise_(wide)
    assert wide[1, 1] == wide[0, 2] == 0
    assert wide[1, 0] > 0


@pytest.mark.parametrize("kind", KINDS)
def test_few_rows_a_chunk_give_the_same_sums(iris: torch.Tensor, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = gmm.em_steps(3, kind)
    torch.manual_seed(0)
    params = steps.init(0, iris)
    whole = steps.e_step(params, iris)
    monkeypatch.setattr(products, "_MAX_ROWS", 7)
    for part, value in zip(steps.e_step(params, iris.clone()), whole, strict=True):
        torch.testing.assert_close(part, value, rtol=1e-12, atol=1e-11)


def alone(steps: Steps) -> Steps:
    """The same steps without their mark, so that the loop runs one restart after the other."""
    return steps._replace(batched=False)


def purchases() -> torch.Tensor:
    return mixture.simulate(150, num_components=3, num_features=5, seed=1)[0]


@pytest.mark.parametrize("map", [False, True])
@pytest.mark.parametrize("model", [*KINDS, "poisson", "multinomial"])
@pytest.mark.parametrize("accelerate", [False, True])
def test_restarts_together_end_where_each_ends_alone(
    iris: torch.Tensor, model: str, map: bool, accelerate: bool
) -> None:
    """And walk the same way; accelerated, restarts come so close to one optimum that rounding says which is best."""
    x = iris if model in KINDS else purchases()
    steps = (gmm if model in KINDS else mixture).em_steps(3, model, map=map)
    options = {"num_restarts": 6, "seed": 2, "accelerate": accelerate}
    together, one_by_one = (em(s, x, **options) for s in (steps, alone(steps)))
    if not accelerate:
        torch.testing.assert_close(together.info.objective, one_by_one.info.objective, rtol=1e-9, atol=0)
    for first, second in zip(together.info.optima, one_by_one.info.optima, strict=True):
        assert first["restarts"] == second["restarts"]
        assert first["objective"] == pytest.approx(second["objective"], rel=1e-7)
    for name, value in one_by_one.params.items():
        first, second = (numbers.flatten().sort().values for numbers in (together.params[name], value))
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)  # equal optima may differ in their labels


@pytest.mark.parametrize("model", [*KINDS, "poisson", "multinomial"])
def test_restarts_of_coordinate_ascent_together_end_where_each_ends_alone(iris: torch.Tensor, model: str) -> None:
    x = iris if model in KINDS else purchases()
    steps = (gmm if model in KINDS else mixture).cavi_steps(3, model)
    together, one_by_one = (cavi(s, x, num_restarts=4, num_draws=1, tol=1e-4) for s in (steps, alone(steps)))
    torch.testing.assert_close(together.info.objective, one_by_one.info.objective, rtol=1e-9, atol=0)


@pytest.mark.parametrize("model", [*KINDS, "poisson", "multinomial"])
def test_single_precision_is_summed_in_double(iris: torch.Tensor, model: str) -> None:
    """Iterations on float32 data are those on the same numbers in float64, far from the origin too."""
    single = (iris + 1e4).float() if model in KINDS else purchases().float()
    family = gmm if model in KINDS else mixture
    for steps in (family.em_steps(3, model), family.cavi_steps(3, model)):
        torch.manual_seed(0)
        params = steps.init(1, single)
        here, there = params, params
        for _ in range(5):
            here = steps.m_step(steps.e_step(here, single), single)
            there = steps.m_step(steps.e_step(there, single.double()), single.double())
        for name, value in there.items():
            assert value.dtype == torch.float64
            torch.testing.assert_close(here[name], value, rtol=1e-12, atol=0)
    assert em(family.em_steps(2, model), single, num_restarts=2).info.converged


@pytest.mark.parametrize("model", ["full", "diagonal", "poisson"])
def test_memory_holds_the_data_and_a_chunk(model: str, largest: Any) -> None:
    """300,000 rows of 2 columns in float32: nothing made is half as large, k-means' sample of 100,000 rows included."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(300_000, 2, generator=rng)
    x[::2] += 6
    x = x if model != "poisson" else (4 * x).abs().round()
    with largest:
        em((mixture if model == "poisson" else gmm).em_steps(2, model), x, num_restarts=1, num_steps=2)
    assert 0 < largest.numbers <= 200_000


@pytest.mark.parametrize("kind", KINDS)
def test_of_a_batch_only_what_loses_digits_takes_the_slow_way(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each restart gets the statistics that it would get alone, the one whose component has almost collapsed too."""
    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows, form = e_step.prepare(x, 2, kind), form_of(kind)
    loc = torch.stack([x[:2], x[2:4], x[4:6]])
    scale = torch.tensor([1.0, 1e-9, 1.0], dtype=torch.float64)[:, None, None].expand(3, 1 if kind == "tied" else 2, 2)
    root = torch.diag_embed(scale) if form.matrices else scale[..., :1] if kind == "isotropic" else scale
    components = e_step.Components(torch.zeros(3, 2, dtype=torch.float64), loc, form.inverse(root))
    alone = [e_step.expect(e_step.Components(*(value[i] for value in components)), rows, form) for i in range(3)]
    slow, by_distances = [], e_step.by_distances

    def counted(given: e_step.Components, *rest: Any) -> Any:
        slow.append(len(given.loc))
        return by_distances(given, *rest)

    monkeypatch.setattr(e_step, "by_distances", counted)
    together = e_step.expect(components, rows, form)
    assert set(slow) == {1}
    for i, (statistics, log_norm) in enumerate(alone):
        torch.testing.assert_close(together[1][i], log_norm, rtol=1e-12, atol=0)
        for both, one in zip(together[0], statistics, strict=True):
            torch.testing.assert_close(both[i], one, rtol=1e-10, atol=1e-12, equal_nan=True)
