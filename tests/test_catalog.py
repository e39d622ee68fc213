"""Every cell of the catalogue: what each model and each guide must be able to do, whatever it is."""

import warnings

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import config_enumerate

from guidebook import catalog, datasets
from guidebook.catalog import ROWS
from guidebook.inference.traces.draws import is_latent
from guidebook.models import gmm, mixture
from guidebook.workflow import resolve as cells
from guidebook.workflow.fit import Problem, fit
from guidebook.workflow.fit import problem as full_problem

KINDS = [
    ("logistic", []),
    *(("gmm", [f"covariance={c}"]) for c in ("full", "tied", "diagonal", "isotropic")),
    *(("mixture", [f"family={f}"]) for f in ("poisson", "multinomial")),
    ("ppca", []),
    ("factor_analysis", []),
    ("lda", []),
    *(("vae", [f"likelihood={likelihood}"]) for likelihood in ("bernoulli", "gaussian")),
]


def problem(name: str, settings: list[str] | None = None, used: tuple[str, ...] = ()) -> Problem:
    """The model on its default data, with few draws of a guide."""
    task = full_problem(name, settings=settings, used=used)
    return task._replace(row=task.row._replace(num_draws=min(task.row.num_draws, 200)))


GUIDES = [(name, guide) for name, row in ROWS.items() for guide in cells.guides_of(row) if guide != "laplace"]
METHODS = [(name, method) for name in ROWS for method in [*catalog.METHODS, *catalog.SHORT] if method != "svi"]


@pytest.fixture(params=KINDS, ids=lambda kind: "-".join([kind[0], *kind[1]]))
def task(request: pytest.FixtureRequest) -> Problem:
    name, settings = request.param
    return problem(name, settings=settings, used=("nuts",))


def traced(task: Problem, seed: int = 0, *, latent: bool = False) -> poutine.Trace:
    with pyro.get_param_store().scope():
        pyro.set_rng_seed(seed)
        trace = poutine.trace(task.latent_model if latent else task.model).get_trace(*task.args)
    trace.compute_log_prob()
    return trace


def sites_of(trace: poutine.Trace) -> dict[str, torch.Size]:
    """Latent and deterministic sites with their shapes."""
    return {
        n: s["value"].shape
        for n, s in trace.nodes.items()
        if s["type"] == "sample" and (is_latent(s) or s["infer"].get("_deterministic"))
    }


def test_density_is_finite_and_has_finite_gradients(task: Problem) -> None:
    trace = traced(task)
    latent = {n: s["value"].detach().requires_grad_() for n, s in trace.nodes.items() if is_latent(s)}
    density = poutine.trace(poutine.condition(task.model, latent)).get_trace(*task.args).log_prob_sum()
    assert torch.isfinite(density)
    for gradient in torch.autograd.grad(density, list(latent.values())):
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("latent", [False, True])
def test_a_dimension_on_the_left_gives_each_draw_its_own_density(task: Problem, latent: bool) -> None:
    """Three draws under one plate: the densities of the three, one by one."""
    model = task.latent_model if latent else task.model
    if model is None:
        return
    traces = [traced(task, seed, latent=latent) for seed in range(3)]
    local = [n for n, s in traces[0].nodes.items() if is_latent(s) and s["cond_indep_stack"]]
    names = [n for n, s in traces[0].nodes.items() if is_latent(s)]
    if "tokens" in traces[0].nodes:
        return  # z is enumerated, to the left of the tokens' plate: test_lda
    stacked = {n: torch.stack([t.nodes[n]["value"] for t in traces]) for n in names}
    batch = {n: v if n in local else v.unsqueeze(1) for n, v in stacked.items()}
    with pyro.get_param_store().scope():
        pyro.set_rng_seed(0)
        with pyro.plate("draws", 3, dim=-2):
            together = poutine.trace(poutine.condition(model, batch)).get_trace(*task.args)
        again = [
            poutine.trace(poutine.condition(model, {n: v[i] for n, v in stacked.items()})).get_trace(*task.args)
            for i in range(3)
        ]
    together.compute_log_prob()
    sites = [
        n for n, s in together.nodes.items() if s["type"] == "sample" and "log_prob" in s and n not in ("draws", "rows")
    ]
    density = sum(together.nodes[n]["log_prob"].reshape(3, -1).sum(1) for n in sites)
    expected = torch.stack([t.log_prob_sum() for t in again])
    torch.testing.assert_close(density, expected, rtol=1e-10, atol=1e-10)


def test_it_generates_what_it_observes(task: Problem) -> None:
    nodes = traced(task).nodes.items()
    observed = [
        n for n, s in nodes if s["type"] == "sample" and s["is_observed"] and not s["infer"].get("_deterministic")
    ]
    assert [n for n in observed if n != "rows"] == (["y"] if task.row.supervised else ["x"])
    x = task.args[0]
    options = {
        "gmm": lambda: {"prior": gmm.default_prior(x, 3), "num_rows": 7},
        "mixture": lambda: {
            "prior": mixture.default_prior(x, 4, task.options["family"]),
            "num_rows": 7,
        },
        "lda": lambda: {"num_rows": 7, "num_features": x.shape[1], "totals": torch.full((7,), 9.0, dtype=x.dtype)},
    }.get(task.row.name, lambda: {"num_rows": 7, "num_features": x.shape[1]})
    if task.row.supervised:
        drawn = task.model(x)
    else:
        given = options()
        if task.row.name == "mixture" and task.options["family"] == "multinomial":
            given["totals"] = torch.full((7,), 9.0, dtype=x.dtype)
        drawn = task.model(None, **given)
        assert drawn.shape == (7, x.shape[1])
    assert torch.isfinite(drawn).all()


def test_float32_works_too(task: Problem) -> None:
    single = task._replace(args=tuple(value.float() for value in task.args))
    trace = traced(single)
    assert all(s["value"].dtype == torch.float32 for n, s in trace.nodes.items() if is_latent(s))
    assert torch.isfinite(trace.log_prob_sum())


def test_pointwise_likelihood_is_the_density_of_the_observed_site(task: Problem) -> None:
    if task.row.derive is not None:
        return  # a marginal likelihood: test_vae
    trace = traced(task)
    sites = {n: s["value"] for n, s in trace.nodes.items() if n in sites_of(trace)}
    pointwise = task.row.log_likelihood(sites, *task.args)
    torch.testing.assert_close(pointwise, trace.nodes["y" if task.row.supervised else "x"]["log_prob"])


def test_explicit_latent_variables_summed_out_give_the_same_density(task: Problem) -> None:
    """For a discrete one by enumeration; for a normal one by importance sampling from its exact posterior."""
    if task.latent_model is None or "enum" not in task.row.losses.values():
        return  # of factors: test_ppca and test_factor_analysis
    trace = traced(task)
    sites = {n: s["value"] for n, s in trace.nodes.items() if is_latent(s)}
    explicit = config_enumerate(poutine.condition(task.latent_model, sites))
    loss = pyro.infer.TraceEnum_ELBO(max_plate_nesting=1).loss(explicit, lambda *_: None, *task.args)
    assert loss == pytest.approx(-float(trace.log_prob_sum()), rel=1e-10)


@pytest.mark.filterwarnings("ignore:svi")
@pytest.mark.parametrize(("name", "guide"), GUIDES)
def test_every_guide_fits(name: str, guide: str) -> None:
    """Latent and deterministic sites with the model's shapes, finite; the loss has come down."""
    task = problem(name, used=(guide,))
    posterior = fit(task, "svi", guide, steps=60)
    wanted = sites_of(traced(task))
    if task.row.derive is not None:
        wanted |= {n: v.shape for n, v in task.row.derive(posterior.params).items()}
    if (
        guide in task.row.latent_guides or guide in task.row.amortised or name == "lda"
    ):  # parameters by point, or global sites; the rows' own are not kept
        assert {n: v.shape[2:] for n, v in posterior.draws.items()} == {n: wanted[n] for n in posterior.draws}
    else:
        assert {n: v.shape[2:] for n, v in posterior.draws.items()} == wanted
    assert all(torch.isfinite(v).all() for v in posterior.draws.values())
    losses = posterior.info.losses
    part = min(10, len(losses) // 2)
    assert losses[-part:].mean() < losses[:part].mean()
    quantities = task.identify(posterior.draws)
    assert quantities
    assert all(torch.isfinite(v).all() for v in quantities.values())


@pytest.mark.filterwarnings("ignore:svi")
@pytest.mark.parametrize("name", ROWS)
def test_minibatches_stand_for_all_rows(name: str) -> None:
    """Scaled up, the loss of 50 rows goes where that of all rows goes."""
    row = ROWS[name]
    guide, settings = (*row.amortised, "mean_field")[0], ["num_topics=3"] if name == "lda" else []
    rows = len(problem(name, settings=settings).args[0])
    batch, full = (
        fit(problem(name, settings=[*settings, f"batch_size={size}"]), "svi", guide, steps=80).info.losses[-40:].mean()
        for size in (50, rows)
    )
    assert float(batch) == pytest.approx(float(full), rel=0.15)


@pytest.mark.filterwarnings("ignore:svi")
@pytest.mark.parametrize("loss", ["mean_field", "graph", "renyi", "iwae"])
@pytest.mark.parametrize("name", ROWS)
def test_every_loss_serves_every_model(name: str, loss: str) -> None:
    guide = "mean_field" if "mean_field" in ROWS[name].guides else ROWS[name].default_guide
    task = problem(name, settings=[f"loss={loss}", "num_particles=2"], used=(guide,))
    posterior = fit(task, "svi", guide, steps=60)
    assert posterior.info.losses[-10:].mean() < posterior.info.losses[:10].mean()


def test_laplace_at_no_mode_says_so() -> None:
    task = problem("gmm")
    with pytest.raises(ArithmeticError, match="needs a mode"):
        fit(task, "svi", "laplace", steps=5)


@pytest.mark.parametrize("covariance", ["tied", "diagonal", "isotropic"])
@pytest.mark.parametrize("guide", ["mean_field_by_hand", "structured"])
@pytest.mark.filterwarnings("ignore:svi")
def test_the_mixtures_hand_written_guides_follow_its_covariance(covariance: str, guide: str) -> None:
    task = problem("gmm", settings=[f"covariance={covariance}"])
    posterior = fit(task, "svi", guide, steps=60)
    assert posterior.draws["covariance"].shape[2:] == traced(task).nodes["covariance"]["value"].shape


@pytest.mark.parametrize(("name", "method"), METHODS)
def test_every_method_fits_or_says_why_not(name: str, method: str) -> None:
    row = ROWS[name]
    if method in row.empty:
        with pytest.raises(
            ValueError, match=f"{name} has no {method}: .*; nearest is {row.empty[method].nearest}, and"
        ):
            cells.split_method(row, method)
        assert row.empty[method].nearest in cells.methods_of(row)
        return
    resolved, guide = cells.split_method(row, method)
    task = problem(name, used=(resolved, guide or ""))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        posterior = fit(task, resolved, guide, steps=1200 if method == "laplace" else 100, draws=6, warmup=6, chains=1)
    assert posterior.info.method == ("svi" if method in catalog.SHORT else method)
    quantities = task.identify(posterior.draws)
    assert quantities
    assert all(torch.isfinite(v).all() for v in quantities.values())


def test_options_are_read_and_refused() -> None:
    row = ROWS["gmm"]
    options = cells.parse_options(row, ["num_components=4", "covariance=tied", "standardize=true", "tol=1e-3"])
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
            cells.parse_options(row, [setting])


def test_methods_are_resolved_and_refused() -> None:
    row = ROWS["gmm"]
    assert cells.split_methods(row, "em,svi:flow,laplace", None) == (
        {"em": ("em", None), "svi:flow": ("svi", "flow"), "laplace": ("svi", "laplace")},
        "em",
    )
    assert cells.split_methods(row, None, None)[1] == "nuts"
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
            cells.split_methods(row, methods, reference)
    with pytest.raises(ValueError, match="name two"):
        cells.split_method(row, "svi:flow", "low_rank")


def test_pixels_become_what_the_likelihood_takes() -> None:
    digits = datasets.load("digits").x
    assert torch.equal(problem("vae").args[0], (digits > 8).to(digits))
    drawn = problem("vae", settings=["binarise=fixed"]).args[0]
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    assert float(drawn.mean()) == pytest.approx(float(digits.mean()) / 16, abs=4 * 0.5 / digits.numel() ** 0.5)
    dequantised = problem("vae", settings=["likelihood=gaussian"]).args[0]
    torch.testing.assert_close((17 * dequantised).floor(), digits)
    with pytest.raises(ValueError, match="vae: the Bernoulli likelihood takes intensities from 0 up"):
        problem("vae", settings=["standardize=true"])


@pytest.mark.filterwarnings("ignore:svi")
def test_optimisers_and_warm_up_reach_the_fit() -> None:
    losses = {
        setting: fit(problem("vae", settings=[setting, "lr=1e-6"]), "svi", "encoder", steps=20).info.losses
        for setting in ("optim=adam", "optim=sgd", "optim=rmsprop", "warm_up=10")
    }
    first = [float(loss[0]) for loss in losses.values()]
    assert first[0] == first[1] == first[2] > first[3]  # no divergence from the prior at first
    assert len({float(loss[-1]) for loss in losses.values()}) == 4
    with pytest.raises(ValueError, match="warm_up goes with the loss trace, and loss is iwae"):
        fit(problem("vae", settings=["warm_up=10", "loss=iwae", "num_particles=2"]), "svi", "encoder", steps=2)


def test_small_data_serve_the_cells_that_large_ones_would_not_fit_in() -> None:
    assert problem("lda").data.name == "reuters"
    small = problem("lda", used=("cavi", None, "nuts"))
    assert small.data.name == "three_documents"
    assert (small.options["num_topics"], small.options["alpha"], small.options["eta"]) == (2, 1.0, 1.0)
    assert problem("lda", settings=["num_topics=3"], used=("nuts",)).options["num_topics"] == 3
    assert full_problem("lda", data="purchases", used=("nuts",)).options["num_topics"] == 20
