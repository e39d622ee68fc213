"""Every cell of the catalogue: what each model, guide and method must be able to do."""

import warnings
from collections.abc import Callable
from functools import partial
from inspect import signature

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import config_enumerate

from guidebook import catalog, datasets
from guidebook.catalog import METHODS, ROWS, row_of
from guidebook.inference import Posterior, gibbs
from guidebook.inference.traces.draws import is_latent
from guidebook.models import gmm, mixture
from guidebook.workflow import resolve
from guidebook.workflow.fit import Task, fit, load_task

Kind = tuple[str, list[str]]

NORMAL = ("mean_field", "low_rank", "full_rank", "flow")  # families that may start at their optimum


def kinds_of(row: catalog.Row) -> list[Kind]:
    """A model at its defaults, and with every other choice of each option that has choices."""
    others = [
        f"{name}={choice}"
        for name, option in row.options.items()
        for choice in option.choices or ()
        if choice != option.default
    ]
    return [(row.name, []), *((row.name, [setting]) for setting in others)]


KINDS: list[Kind] = [kind for row in ROWS.values() for kind in kinds_of(row)]
GUIDES = [(name, guide) for name, row in ROWS.items() for guide in row.guides if guide != "laplace"]
METHOD_NAMES = [name for name in (*METHODS, *catalog.ALIASES) if name != "svi"]
FITS = [(name, method) for name, row in ROWS.items() for method in METHOD_NAMES if method not in row.unavailable]
GAPS = [(name, method) for name, row in ROWS.items() for method in METHOD_NAMES if method in row.unavailable]


def small_task(name: str, settings: list[str] | None = None, used: tuple[str, ...] = ()) -> Task:
    """The model on its default data, with few draws of a guide."""
    task = load_task(name, settings=settings, used=used)
    return task._replace(row=task.row._replace(num_draws=min(task.row.num_draws, 200)))


def of_kinds(kinds: list[Kind]) -> Callable:
    """Run a test on these kinds of model."""
    return pytest.mark.parametrize("task", kinds, indirect=True, ids=lambda kind: "-".join([kind[0], *kind[1]]))


@pytest.fixture
def task(request: pytest.FixtureRequest) -> Task:
    name, settings = request.param
    return small_task(name, settings=settings, used=("nuts",))


def traced(task: Task, seed: int = 0, *, latent: bool = False) -> poutine.Trace:
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


@of_kinds(KINDS)
def test_density_is_finite_and_has_finite_gradients(task: Task) -> None:
    trace = traced(task)
    latent = {n: s["value"].detach().requires_grad_() for n, s in trace.nodes.items() if is_latent(s)}
    density = poutine.trace(poutine.condition(task.model, latent)).get_trace(*task.args).log_prob_sum()
    assert torch.isfinite(density)
    for gradient in torch.autograd.grad(density, list(latent.values())) if latent else ():
        assert torch.isfinite(gradient).all()


# of lda.latent_model, z is enumerated, to the left of the tokens' plate: test_lda
@pytest.mark.parametrize(
    ("task", "latent"),
    [(kind, False) for kind in KINDS] + [(k, True) for k in KINDS if ROWS[k[0]].latent_model and k[0] != "lda"],
    indirect=["task"],
)
def test_a_dimension_on_the_left_gives_each_draw_its_own_density(task: Task, latent: bool) -> None:
    """Three draws under one plate: the densities of the three, one by one."""
    model = task.latent_model if latent else task.model
    assert model is not None
    traces = [traced(task, seed, latent=latent) for seed in range(3)]
    local = [n for n, s in traces[0].nodes.items() if is_latent(s) and s["cond_indep_stack"]]
    names = [n for n, s in traces[0].nodes.items() if is_latent(s)]
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


@of_kinds(KINDS)
def test_it_generates_what_it_observes(task: Task) -> None:
    nodes = traced(task).nodes.items()
    observed = [
        n
        for n, s in nodes
        if s["type"] == "sample" and s["is_observed"] and not {"_deterministic", "is_auxiliary"} & s["infer"].keys()
    ]
    assert [n for n in observed if n != "rows"] == (["y"] if task.row.data.supervised else ["x"])
    x = task.args[0]
    options = {
        "gmm": lambda: {"prior": gmm.default_prior(x, 3), "num_rows": 7},
        "mixture": lambda: {
            "prior": mixture.default_prior(x, 4, task.options["family"]),
            "num_rows": 7,
        },
        "lda": lambda: {"num_rows": 7, "num_features": x.shape[1], "totals": torch.full((7,), 9.0, dtype=x.dtype)},
    }.get(task.row.name, lambda: {"num_rows": 7, "num_features": x.shape[1]})
    if task.row.data.supervised:
        drawn = task.model(x)
    else:
        given = options()
        if task.row.name == "mixture" and task.options["family"] == "multinomial":
            given["totals"] = torch.full((7,), 9.0, dtype=x.dtype)
        drawn = task.model(None, **given)
        assert drawn.shape == (7, x.shape[1])
    assert torch.isfinite(drawn).all()


@of_kinds(KINDS)
def test_float32_works_too(task: Task) -> None:
    single = task._replace(args=tuple(value.float() for value in task.args))
    trace = traced(single)
    assert all(s["value"].dtype == torch.float32 for n, s in trace.nodes.items() if is_latent(s))
    assert torch.isfinite(trace.log_prob_sum())


@of_kinds([kind for kind in KINDS if ROWS[kind[0]].add_quantities is None])  # of vae a marginal one: test_vae
def test_pointwise_likelihood_is_the_density_of_the_observed_site(task: Task) -> None:
    trace = traced(task)
    sites = {n: s["value"] for n, s in trace.nodes.items() if n in sites_of(trace)}
    pointwise = task.row.log_likelihood(sites, *task.args)
    torch.testing.assert_close(pointwise, trace.nodes["y" if task.row.data.supervised else "x"]["log_prob"])


# of factors: test_ppca and test_factor_analysis
@of_kinds([kind for kind in KINDS if any(guide.loss == "enum" for guide in ROWS[kind[0]].guides.values())])
def test_explicit_latent_variables_summed_out_give_the_same_density(task: Task) -> None:
    trace = traced(task)
    sites = {n: s["value"] for n, s in trace.nodes.items() if is_latent(s)}
    explicit = config_enumerate(poutine.condition(task.latent_model, sites))
    loss = pyro.infer.TraceEnum_ELBO(max_plate_nesting=1).loss(explicit, lambda *_: None, *task.args)
    assert loss == pytest.approx(-float(trace.log_prob_sum()), rel=1e-10)


def check_draws(task: Task, posterior: Posterior) -> None:
    """Draws lie in the support, have a finite joint density, and give the deterministic sites that come with them."""
    for chain, draw in ((0, 0), (-1, -1)):
        values = {name: value[chain, draw] for name, value in posterior.draws.items()}
        with pyro.get_param_store().scope():
            pyro.set_rng_seed(0)
            trace = poutine.trace(poutine.condition(task.model, values)).get_trace(*task.args)
        for name, site in trace.nodes.items():
            if name in values and site["infer"].get("_deterministic"):
                torch.testing.assert_close(site["value"], values[name], rtol=1e-5, atol=1e-7)
            elif name in values:
                assert site["fn"].support.check(values[name]).all(), name
        if all(name in values for name, site in trace.nodes.items() if is_latent(site)):
            assert torch.isfinite(trace.log_prob_sum())


def exact_log_likelihood(task: Task, posterior: Posterior) -> float:
    """Log likelihood at the parameters learned."""
    params = {**posterior.params, **{name: value[0, 0] for name, value in posterior.draws.items()}}
    return float(task.row.log_likelihood(params, *task.args).sum())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:svi")
@pytest.mark.parametrize(("name", "guide"), GUIDES)
def test_every_guide_fits(name: str, guide: str) -> None:
    """Draws of the model's sites; the loss comes down, the ELBO is the mean log weight and bounds the likelihood.

    A normal family may start at its optimum: there the loss has noise alone.
    """
    task = small_task(name, used=(guide,))
    posterior, cell = fit(task, "svi", guide, steps=60), task.row.guides[guide]
    wanted = sites_of(traced(task))
    if task.row.add_quantities:
        added = task.row.add_quantities(posterior.params)
        wanted |= {n: v.shape for n, v in added.items()}
        assert all(torch.equal(posterior.draws[n][0, 0], v) for n, v in added.items())
    else:
        check_draws(task, posterior)
    shapes = {n: v.shape[2:] for n, v in posterior.draws.items()}
    if cell.latent or name == "lda":  # learned as points, or global sites: those of the rows are not kept
        assert shapes == {n: wanted[n] for n in shapes}
    else:
        assert shapes == wanted
    info = posterior.info
    _comes_down(info.losses, guide)
    if info.log_weights is not None:
        assert info.elbo == pytest.approx(float(info.log_weights.mean()), rel=1e-9)
    if cell.latent and info.elbo is not None and not task.row.add_quantities:  # the vae's likelihood is not known
        assert info.elbo <= exact_log_likelihood(task, posterior) + 5 * info.elbo_se
    assert all(torch.isfinite(v).all() for v in task.identify(posterior.draws).values())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:svi")
@pytest.mark.parametrize("name", ROWS)
def test_minibatches_stand_for_all_rows(name: str) -> None:
    """Scaled up, the loss of 50 rows goes where that of all rows goes."""
    row = ROWS[name]
    guide = next((guide for guide, cell in row.guides.items() if cell.minibatch), "mean_field")
    settings = ["num_topics=3"] if name == "lda" else []
    rows = len(small_task(name, settings=settings).args[0])
    batch, full = (
        fit(small_task(name, settings=[*settings, f"batch_size={size}"]), "svi", guide, steps=80)
        .info.losses[-40:]
        .mean()
        for size in (50, rows)
    )
    assert float(batch) == pytest.approx(float(full), rel=0.15)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:svi")
@pytest.mark.parametrize("loss", ["mean_field", "graph", "renyi", "iwae"])
@pytest.mark.parametrize("name", ROWS)
def test_every_loss_serves_every_model(name: str, loss: str) -> None:
    guide = "mean_field" if "mean_field" in ROWS[name].guides else ROWS[name].default_guide
    task = small_task(name, settings=[f"loss={loss}", "num_particles=2"], used=(guide,))
    posterior = fit(task, "svi", guide, steps=60)
    _comes_down(posterior.info.losses, guide)


def _comes_down(losses: torch.Tensor, guide: str) -> None:
    part = min(10, len(losses) // 2)
    first, last = losses[:part], losses[-part:]
    noise = 4 * torch.hypot(first.std(), last.std()) / part**0.5 if guide in NORMAL else 0.0
    assert last.mean() < first.mean() + noise


def test_laplace_at_no_mode_says_so() -> None:
    task = small_task("gmm")
    with pytest.raises(ArithmeticError, match="needs a mode"):
        fit(task, "svi", "laplace", steps=5)


@pytest.mark.parametrize("covariance", ["tied", "diagonal", "isotropic"])
@pytest.mark.parametrize("guide", ["mean_field_by_hand", "structured"])
@pytest.mark.filterwarnings("ignore:svi")
def test_the_mixtures_hand_written_guides_follow_its_covariance(covariance: str, guide: str) -> None:
    task = small_task("gmm", settings=[f"covariance={covariance}"])
    posterior = fit(task, "svi", guide, steps=60)
    assert posterior.draws["covariance"].shape[2:] == traced(task).nodes["covariance"]["value"].shape


@pytest.mark.slow
@pytest.mark.parametrize(("name", "method"), FITS)
def test_every_method_fits(name: str, method: str) -> None:
    """Each method's result satisfies an identity or a bound that holds exactly, however short the run."""
    resolved, guide = resolve.split_method(ROWS[name], method)
    task = small_task(name, settings=["num_epochs=2"] if method == "online" else None, used=(resolved, guide or ""))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        posterior = fit(task, resolved, guide, steps=1200 if method == "laplace" else 100, draws=6, warmup=6, chains=1)
    info = posterior.info
    assert info.method == resolved
    if not task.row.add_quantities:
        check_draws(task, posterior)
    if METHODS[resolved].takes in ("steps", "solution") and info.is_point:
        assert info.log_likelihood == pytest.approx(exact_log_likelihood(task, posterior), rel=1e-9)
    if method in ("em", "cavi"):
        assert (info.objective.diff() >= -1e-9 * info.objective.abs()[1:]).all()
        reached = info.log_likelihood if method == "em" else info.elbo
        assert reached == pytest.approx(max(b["objective"] for b in info.optima if not b["degenerate"]), rel=1e-9)
    if resolved == "online":
        assert info.num_batches == len(info.scores) > 0
        assert info.scores.isfinite().all()
    if resolved == "mcem":
        best = {"ppca": ("closed_form", {}), "factor_analysis": ("em", {})}.get(name)
        if best:  # no estimate has a higher likelihood than the maximum
            assert exact_log_likelihood(task, posterior) <= fit(task, best[0]).info.log_likelihood + 1e-6
        assert info.losses[-20:].mean() < info.losses[:20].mean()
    assert all(torch.isfinite(v).all() for v in task.identify(posterior.draws).values())


@pytest.mark.parametrize(("name", "method"), GAPS)
def test_a_method_that_a_model_lacks_is_refused_with_the_reason(name: str, method: str) -> None:
    row = ROWS[name]
    nearest = row.unavailable[method].nearest
    with pytest.raises(ValueError, match=f"{name} has no {method}: .*; nearest is {nearest}, and"):
        resolve.split_method(row, method)
    assert nearest in resolve.methods_of(row)


@pytest.mark.filterwarnings("ignore:gibbs. drew 7")
def test_counts_and_options_reach_the_method() -> None:
    """Anything but the default changes the fit as it should."""
    task = load_task("gmm", settings=["thin=3"])
    sampled = fit(task, "gibbs", draws=7, warmup=11, chains=2)
    assert sampled.draws["loc"].shape[:2] == (2, 7)
    assert sampled.info.num_warmup == 11
    steps = resolve.bind(gmm.gibbs_steps, task.options, task.row.options)()
    counts = {"num_draws": 7, "num_warmup": 11, "num_chains": 2, "progress": False}
    for thin, same in ((3, True), (5, False)):
        again = gibbs(steps, *task.args, **counts, thin=thin)
        assert torch.equal(again.draws["loc"], sampled.draws["loc"]) is same
    assert torch.equal(  # five sweeps per draw by default
        fit(load_task("gmm"), "gibbs", draws=7, warmup=11, chains=2).draws["loc"], again.draws["loc"]
    )
    assert len(fit(task, "em", steps=3).info.objective) <= 4 < len(fit(task, "em").info.objective)
    assert fit(task, "em", seed=1).info.seed == 1
    one = fit(load_task("gmm", settings=["num_restarts=1"]), "em")
    assert sum(optimum["restarts"] for optimum in one.info.optima) == 1
    point = fit(load_task("gmm", settings=["map=true"]), "em")
    assert exact_log_likelihood(task, point) < exact_log_likelihood(task, fit(task, "em")) - 0.1
    assert len(fit(task, "cavi").draws["loc"][0]) == ROWS["gmm"].num_draws != 1000
    assert fit(load_task("gmm", settings=["num_components=2"]), "em").draws["loc"].shape == (1, 1, 2, 4)


@pytest.mark.parametrize("name", METHODS)
def test_every_option_of_a_method_is_taken_by_it_or_by_a_models_steps(name: str) -> None:
    taken = {*signature(METHODS[name].function).parameters}
    for row in ROWS.values():
        taken |= {*signature(row.steps[name]).parameters} if name in row.steps else set()
    named = {"renyi_order", "warm_up"} if name == "svi" else set()  # parts of the loss
    assert {*METHODS[name].options, *METHODS[name].counts, *METHODS[name].defaults} <= taken | named


def test_default_options_hold_on_the_default_data_only() -> None:
    row = ROWS["ppca"]._replace(default_options={"em": {"num_restarts": 2}})
    for data, number in (("wine", 2), ("iris", 10)):
        posterior = fit(load_task("ppca", data)._replace(row=row), "em")
        assert sum(optimum["restarts"] for optimum in posterior.info.optima) == number


def test_a_row_is_found_by_the_model_function_itself() -> None:
    for row in ROWS.values():
        assert row_of(row.model) is row
        assert row_of(partial(partial(row.model, x=None), num_rows=1)) is row
    assert row_of(None) is None
    assert row_of(lambda x: gmm.model(x)) is None


def test_options_are_read_and_refused() -> None:
    row = ROWS["gmm"]
    options = resolve.parse_options(row, ["num_components=4", "covariance=tied", "standardize=true", "tol=1e-3"])
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
            resolve.parse_options(row, [setting])


def test_methods_are_resolved_and_refused() -> None:
    row = ROWS["gmm"]
    assert resolve.split_methods(row, "em,svi:flow,laplace", None) == (
        {"em": ("em", None), "svi:flow": ("svi", "flow"), "laplace": ("svi", "laplace")},
        "em",
    )
    assert resolve.split_methods(row, None, None)[1] == "nuts"
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
            resolve.split_methods(row, methods, reference)
    with pytest.raises(ValueError, match="name two"):
        resolve.split_method(row, "svi:flow", "low_rank")


def test_pixels_become_what_the_likelihood_takes() -> None:
    digits = datasets.load("digits").x
    assert torch.equal(small_task("vae").args[0], (digits > 8).to(digits))
    drawn = small_task("vae", settings=["binarise=fixed"]).args[0]
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    assert float(drawn.mean()) == pytest.approx(float(digits.mean()) / 16, abs=4 * 0.5 / digits.numel() ** 0.5)
    dequantised = small_task("vae", settings=["likelihood=gaussian"]).args[0]
    torch.testing.assert_close((17 * dequantised).floor(), digits)
    with pytest.raises(ValueError, match="vae: the Bernoulli likelihood takes intensities from 0 up"):
        small_task("vae", settings=["standardize=true"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:svi")
def test_optimisers_and_warm_up_reach_the_fit() -> None:
    losses = {
        setting: fit(small_task("vae", settings=[setting, "lr=1e-6"]), "svi", "encoder", steps=20).info.losses
        for setting in ("optim=adam", "optim=sgd", "optim=rmsprop", "warm_up=10")
    }
    first = [float(loss[0]) for loss in losses.values()]
    assert first[0] == first[1] == first[2] > first[3]  # no divergence from the prior at first
    assert len({float(loss[-1]) for loss in losses.values()}) == 4
    with pytest.raises(ValueError, match="warm_up goes with the loss trace, and loss is iwae"):
        fit(small_task("vae", settings=["warm_up=10", "loss=iwae", "num_particles=2"]), "svi", "encoder", steps=2)


def test_small_data_serve_the_cells_that_large_ones_would_not_fit_in() -> None:
    assert small_task("lda").data.name == "reuters"
    small = small_task("lda", used=("cavi", None, "nuts"))
    assert small.data.name == "three_documents"
    assert (small.options["num_topics"], small.options["alpha"], small.options["eta"]) == (2, 1.0, 1.0)
    assert small_task("lda", settings=["num_topics=3"], used=("nuts",)).options["num_topics"] == 3
    assert load_task("lda", data="purchases", used=("nuts",)).options["num_topics"] == 20


def test_options_leave_methods_out_with_the_reason() -> None:
    """And out of what compare and fit do by default; other values and other models keep theirs."""
    row = resolve.find_row("linear", ["noise=student"])
    assert row.default_methods[0] == "nuts"
    assert row.ladder == ("dadvi", "gibbs", "nuts")
    with pytest.raises(ValueError, match=r"no closed_form: with Student noise .*; nearest is gibbs, and it has svi"):
        resolve.split_method(row, "closed_form")
    with pytest.raises(ValueError, match="no closed_form"):
        resolve.split_method(load_task("linear", settings=["noise=student"]).row, "closed_form")
    sparse = resolve.find_row("linear", ["prior=horseshoe"])
    assert {"closed_form", "cavi", "gibbs", "conjugate"} <= sparse.unavailable.keys()
    with pytest.raises(ValueError, match="linear has no guide conjugate: it is for the normal prior"):
        resolve.split_method(sparse, "svi:conjugate")
    assert resolve.find_row("linear", ["df=3"]) == resolve.find_row("linear") == ROWS["linear"]
    with pytest.raises(ValueError, match="unknown option of linear 'nois'"):
        resolve.find_row("linear", ["nois=student"])


def test_the_first_of_a_models_own_methods_is_the_reference() -> None:
    row = ROWS["linear"]
    assert resolve.split_methods(row, None, None)[1] == row.default_methods[0] == "closed_form"
    assert resolve.split_methods(row, "closed_form,nuts", None)[1] == "nuts"
    assert resolve.split_methods(row, "cavi,gibbs", None)[1] == "cavi"
    assert resolve.split_methods(row, None, "gibbs")[1] == "gibbs"
