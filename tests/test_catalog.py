"""Every cell of the catalogue: what each model and each guide must be able to do, whatever it is."""

import warnings

import pyro
import pytest
import torch
from pyro import poutine

from guidebook import catalog
from guidebook.catalog import ROWS
from guidebook.fit import Problem, fit, problem
from guidebook.inference.draws import is_latent

KINDS = [("logistic", [])] + [("gmm", [f"covariance={c}"]) for c in ("full", "tied", "diagonal", "isotropic")]
GUIDES = [(name, guide) for name, row in ROWS.items() for guide in row.guides]


@pytest.fixture(params=KINDS, ids=lambda kind: "-".join([kind[0], *kind[1]]))
def task(request: pytest.FixtureRequest) -> Problem:
    name, settings = request.param
    return problem(name, settings=settings)


def traced(task: Problem, seed: int = 0) -> poutine.Trace:
    pyro.set_rng_seed(seed)
    trace = poutine.trace(task.model).get_trace(*task.args)
    trace.compute_log_prob()
    return trace


def test_density_is_finite_and_has_finite_gradients(task: Problem) -> None:
    trace = traced(task)
    latent = {n: s["value"].detach().requires_grad_() for n, s in trace.nodes.items() if is_latent(s)}
    density = poutine.trace(poutine.condition(task.model, latent)).get_trace(*task.args).log_prob_sum()
    assert torch.isfinite(density)
    for gradient in torch.autograd.grad(density, list(latent.values())):
        assert torch.isfinite(gradient).all()


def test_a_dimension_on_the_left_gives_each_draw_its_own_density(task: Problem) -> None:
    """Three draws under one plate: the densities of the three, one by one."""
    traces = [traced(task, seed) for seed in range(3)]
    names = [n for n, s in traces[0].nodes.items() if is_latent(s)]
    batch = {n: torch.stack([t.nodes[n]["value"] for t in traces]).unsqueeze(1) for n in names}
    with pyro.plate("draws", 3, dim=-2):
        together = poutine.trace(poutine.condition(task.model, batch)).get_trace(*task.args)
    together.compute_log_prob()
    sites = [
        n for n, s in together.nodes.items() if s["type"] == "sample" and "log_prob" in s and n not in ("draws", "rows")
    ]
    density = sum(together.nodes[n]["log_prob"].reshape(3, -1).sum(1) for n in sites)
    expected = torch.stack([t.log_prob_sum() for t in traces])
    torch.testing.assert_close(density, expected, rtol=1e-10, atol=1e-10)


def test_it_generates_what_it_observes(task: Problem) -> None:
    observed = [
        n for n, s in traced(task).nodes.items() if s["type"] == "sample" and s["is_observed"] and "log_prob" in s
    ]
    observed = [n for n in observed if not traced(task).nodes[n]["infer"].get("_deterministic")]
    assert observed == (["y"] if task.row.supervised else ["x"])
    if task.row.supervised:
        drawn = task.model(task.args[0])
    else:
        from guidebook.models import gmm

        prior = gmm.default_prior(task.args[0], 3)
        drawn = task.model(None, prior=prior, num_rows=7)
        assert drawn.shape == (7, 4)
    assert torch.isfinite(drawn).all()


def test_float32_works_too(task: Problem) -> None:
    single = task._replace(args=tuple(value.float() for value in task.args))
    trace = traced(single)
    assert all(s["value"].dtype == torch.float32 for n, s in trace.nodes.items() if is_latent(s))
    assert torch.isfinite(trace.log_prob_sum())


@pytest.mark.filterwarnings("ignore:svi")
@pytest.mark.parametrize(("name", "guide"), GUIDES)
def test_every_guide_fits(name: str, guide: str) -> None:
    """Latent and deterministic sites with the model's shapes, finite; the loss has come down."""
    task = problem(name)
    posterior = fit(task, "svi", guide, steps=1200 if guide == "laplace" else 120)
    trace = traced(task)
    wanted = {
        n: s["value"].shape
        for n, s in trace.nodes.items()
        if is_latent(s) or (s["type"] == "sample" and s["infer"].get("_deterministic"))
    }
    assert {n: v.shape[2:] for n, v in posterior.draws.items()} == wanted
    assert all(torch.isfinite(v).all() for v in posterior.draws.values())
    losses = posterior.info.losses
    assert losses[-20:].mean() < losses[:20].mean()
    quantities = task.row.identify(posterior.draws)
    assert all(torch.isfinite(v).all() for v in quantities.values())


@pytest.mark.filterwarnings("ignore:svi")
@pytest.mark.parametrize("name", ROWS)
def test_minibatches_serve_every_model(name: str) -> None:
    posterior = fit(problem(name, settings=["batch_size=50"]), "svi", "mean_field", steps=120)
    assert posterior.info.losses[-20:].mean() < posterior.info.losses[:20].mean()


def test_laplace_at_no_mode_says_so() -> None:
    task = problem("gmm")
    with pytest.raises(ArithmeticError, match="needs a mode"):
        fit(task, "svi", "laplace", steps=5)


@pytest.mark.parametrize("covariance", ["tied", "diagonal", "isotropic"])
@pytest.mark.filterwarnings("ignore:svi")
def test_the_mixtures_hand_written_guide_follows_its_covariance(covariance: str) -> None:
    task = problem("gmm", settings=[f"covariance={covariance}"])
    posterior = fit(task, "svi", "mean_field_by_hand", steps=120)
    assert posterior.draws["covariance"].shape[2:] == traced(task).nodes["covariance"]["value"].shape


@pytest.mark.parametrize("name", ROWS)
def test_every_method_fits_or_says_why_not(name: str) -> None:
    row = ROWS[name]
    for method in ["nuts", "em", "cavi", "gibbs", "mcem", *catalog.SHORT]:  # svi: every guide, above
        if method in row.empty:
            with pytest.raises(ValueError, match=f"{name} has no {method}: .*; it has "):
                catalog.split_method(row, method)
            continue
        resolved, guide = catalog.split_method(row, method)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            posterior = fit(problem(name), resolved, guide, steps=1200, draws=10, warmup=10, chains=1)
        assert all(torch.isfinite(v).all() for v in row.identify(posterior.draws).values())


def test_options_are_read_and_refused() -> None:
    row = ROWS["gmm"]
    options = catalog.parse_options(row, ["num_components=4", "covariance=tied", "standardize=true", "tol=1e-3"])
    assert options["num_components"] == 4
    assert options["covariance"] == "tied"
    assert options["standardize"] is True
    assert options["tol"] == 1e-3
    for setting, words in (
        ("num_components", "takes option=value"),
        ("num_components=x", "must be a whole number"),
        ("num_components=0", "at least 1"),
        ("covariance=ful", "did you mean full"),
        ("standardize=yes", "true or false"),
        ("lr=0", "more than 0"),
        ("lr=nan", "finite"),
        ("components=3", "unknown option of gmm 'components': did you mean num_components"),
    ):
        with pytest.raises(ValueError, match=words):
            catalog.parse_options(row, [setting])


def test_methods_are_resolved_and_refused() -> None:
    row = ROWS["gmm"]
    assert catalog.split_methods(row, "em,svi:flow,laplace", None) == (
        {"em": ("em", None), "svi:flow": ("svi", "flow"), "laplace": ("svi", "laplace")},
        "em",
    )
    assert catalog.split_methods(row, None, None)[1] == "nuts"
    for methods, reference, words in (
        ("nuts", None, "needs two or more"),
        ("nuts,nuts", None, "names nuts twice"),
        ("laplace,svi:laplace", None, "twice"),
        ("nuts,svi:full", None, "did you mean full_rank"),
        ("nuts,emm", None, "did you mean em"),
        ("nuts:flow,em", None, "nuts takes no guide"),
        ("nuts,em", "svi", "unknown reference"),
        ("nuts,", None, "unknown method ''"),
    ):
        with pytest.raises(ValueError, match=words):
            catalog.split_methods(row, methods, reference)
    with pytest.raises(ValueError, match="name two"):
        catalog.split_method(row, "svi:flow", "low_rank")
