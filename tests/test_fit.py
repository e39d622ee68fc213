"""The cheapest good posterior: what is tried, in which order, and why the search stops."""

import math
import re
from collections.abc import Callable
from typing import Any

import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from guidebook.inference import Check, Posterior, check, fit
from guidebook.inference.climb import Rung, climb
from guidebook.inference.info import ClosedFormInfo, DadviInfo, NutsInfo
from guidebook.inference.mcmc.beside_chains import COLUMNS

F8 = torch.float64
SD = torch.tensor([2.0, 0.5], dtype=F8)


def model() -> None:
    pyro.sample("x", dist.Normal(torch.ones(2, dtype=F8), SD).to_event(1))


def posterior(shift: float = 0.0, ratio: float = 1.0, seconds: float = 1.0) -> Posterior:
    draws = torch.randn(1, 4000, 2, generator=torch.Generator().manual_seed(0), dtype=F8)
    draws = (draws - draws.mean(1)) / draws.std(1)
    info = ClosedFormInfo(seed=0, seconds=seconds, is_point=False, guide=f"shifted {shift}")
    return Posterior(draws={"x": 1 + SD * (shift + ratio * draws)}, info=info)


def chains(disagree: float = 0.0, num_draws: int = 500) -> Posterior:
    generator = torch.Generator().manual_seed(1)
    draws = torch.randn(4, num_draws, 2, generator=generator, dtype=F8)
    draws = draws + disagree * torch.arange(4, dtype=F8)[:, None, None]
    one = torch.ones(4)
    info = NutsInfo(
        seed=0, seconds=1.0, converged=True, message="", accept_rate=one, step_size=one, num_warmup=1,
        r_hat={"x": torch.ones(2)}, ess={"x": torch.ones(2)}, divergences=torch.zeros(4, dtype=torch.long),
    )  # fmt: skip
    return Posterior(draws={"x": 1 + SD * draws}, info=info)


def climbed(*rungs: tuple[str, Callable[[Posterior | None], Posterior]], **options: Any) -> Posterior:
    def judge(*args: Any) -> Any:
        return check(*args, progress=False)

    return climb([Rung(*rung) for rung in rungs], model, (), judge, **options)


def told(found: Posterior) -> list[tuple[str, str]]:
    return [(rung["method"], rung["judgement"]) for rung in found.info.rungs]


def never(best: Posterior | None) -> Posterior:
    raise AssertionError("this rung is not to be reached")


def broken(best: Posterior | None) -> Posterior:
    raise ValueError("dadvi: it does not work")


def test_the_first_good_one_ends_the_search() -> None:
    found = climbed(("exact", lambda best: posterior()), ("late", never))
    assert told(found) == [("exact", "good")]
    assert (found.info.chosen, found.info.judgement, found.info.converged) == ("exact", "good", True)
    assert found.info.guide == "shifted 0.0"


def test_draws_moved_by_the_check_may_be_the_answer() -> None:
    found = climbed(("narrow", lambda best: posterior(ratio=0.7)), ("late", never))
    assert told(found) == [("narrow", "bad"), ("narrow, moved", "good")]
    assert found.info.chosen == "narrow, moved"
    x = found.draws["x"].flatten(0, 1)
    assert bool(((x.mean(0) - 1).abs() < 0.15 * SD).all())
    assert bool(((x.std(0) / SD - 1).abs() < 0.12).all())
    first, second = found.info.rungs
    assert "Next" not in first["sentence"]
    assert second["sentence"].startswith("narrow, moved, is good: means within ")
    assert found.info.message.startswith(second["sentence"])
    assert f" Tried besides: narrow (bad, {first['seconds']:.1f} s)." in found.info.message
    assert "Next" not in found.info.message


def test_failures_are_told_and_a_sampler_is_judged_by_its_chains() -> None:
    starts = []

    def last(best: Posterior | None) -> Posterior:
        starts.append(best)
        return chains()

    found = climbed(("broken", broken), ("apart", lambda best: chains(disagree=1.0)), ("chains", last))
    assert told(found) == [("broken", "failed"), ("apart", "cannot say"), ("chains", "good")]
    assert found.info.rungs[0]["sentence"] == "dadvi: it does not work"
    assert "its chains disagree" in found.info.rungs[1]["sentence"]
    assert starts[0] is not None
    assert starts[0].info.r_hat is not None


def test_nothing_good_gives_the_best_and_says_so() -> None:
    found = climbed(("apart", lambda best: chains(disagree=1.0)), ("far apart", lambda best: chains(disagree=3.0)))
    assert not found.info.converged
    worst = "far apart comes nearest; it is not to be believed: its chains disagree ("
    assert found.info.message.startswith(f"nothing was found good. {worst}")
    assert " Tried besides: apart (cannot say, " in found.info.message
    assert found.info.message.endswith(" Next: nuts(model, …, num_warmup=2, num_draws=1000).")
    assert "Next" not in found.info.rungs[1]["sentence"]
    alone = climbed(("apart", lambda best: chains(disagree=1.0)), otherwise="guidebook choose")
    assert alone.info.message.startswith("nothing was found good. apart is not to be believed: its chains disagree (")
    assert alone.info.message.endswith(". Next: guidebook choose.")
    with pytest.raises(ValueError, match=r"^fit: no method succeeded: dadvi: it does not work"):
        climbed(("broken", broken))


def test_chains_that_are_merely_short_are_to_be_longer_whatever_else_a_model_advises() -> None:
    few = climbed(("few", lambda best: chains(num_draws=60)), otherwise="guidebook choose")
    assert "too few effective draws" in few.info.message
    assert re.search(r" Next: nuts\(model, …, num_draws=\d+\)\.$", few.info.message)


def counted(count: int, **off: float) -> Posterior:
    fast = posterior(**off)
    record = {"num_draws": 64, "linear_response": True, "rounds": [], "optima": [], "gradients": count}
    info = DadviInfo(seed=0, seconds=1.0, converged=True, message="", **record)  # pyright: ignore[reportArgumentType]
    return Posterior(draws=fast.draws, info=info)


def test_every_rung_says_what_it_cost_and_how_far_off_it_is() -> None:
    """An sd of .7 counts as .25 log(1 / .7) / log 1.25 = .40; chains know no error of their own."""
    found = climbed(
        ("broken", broken), ("narrow", lambda best: counted(1_000_000, ratio=0.7)), ("chains", never), max_seconds=1e9
    )
    failed, narrow, moved = found.info.rungs
    assert (failed["gradients"], failed["error"], failed["judgement"]) == (None, None, "failed")
    assert narrow["error"] == pytest.approx(0.40, abs=0.05)
    assert narrow["gradients"] > 1_000_000
    assert 0 < moved["gradients"] < 1_000_000
    assert moved["error"] < 0.1
    assert narrow["seconds"] + moved["seconds"] == pytest.approx(found.info.seconds, abs=0.1)
    assert min(narrow["seconds"], moved["seconds"]) > 0
    (alone,) = climbed(("chains", lambda best: chains())).info.rungs
    assert (alone["gradients"], alone["error"]) == (None, None)
    (uncounted,) = climbed(("exact", lambda best: posterior())).info.rungs
    assert uncounted["gradients"] is None  # of a method that counts none
    assert uncounted["error"] < 0.1


def test_at_the_default_tolerance_the_check_decides() -> None:
    """Its "good" allows for one error of the chains, and not for the margin that a certain "bad" needs."""
    for judgement in ("good", "usable"):
        table = pd.DataFrame([[0.14, 1.0, 0.03, 0.01]], columns=COLUMNS, index=pd.Index(["x[0]"]))
        said = Check(judgement, f"fast is {judgement}: so.", table, "fast", None, 10, 0.1)
        made = climb([Rung("fast", lambda best: posterior())], model, (), lambda *_, said=said: said)
        assert made.info.judgement == judgement
        wide = climb([Rung("fast", lambda best: posterior())], model, (), lambda *_, said=said: said, tolerance=0.12)
        assert wide.info.judgement == "good"


def test_what_is_not_known_well_is_good_at_no_tolerance() -> None:
    table = pd.DataFrame([[3.0, 1.0, 5.0, 0.01]], columns=COLUMNS, index=pd.Index(["x[0]"]))
    said = Check("bad", "fast is bad: off centre.", table, "fast", None, 10, 0.1)
    made = climb([Rung("fast", lambda best: posterior())], model, (), lambda *_: said, tolerance=0.3)
    assert made.info.judgement != "good"


def test_no_method_is_begun_when_the_time_is_over() -> None:
    found = climbed(("apart", lambda best: chains(disagree=1.0)), ("late", never), max_seconds=1e-9)
    assert told(found) == [("apart", "cannot say"), ("late", "not tried")]
    assert "1e-09 s were over" in found.info.rungs[1]["sentence"]
    assert " Not tried, since 1e-09 s were over: late. Next: a larger max_seconds." in found.info.message


def test_the_tolerance_decides_what_is_good() -> None:
    off = ("off", lambda best: posterior(shift=0.18))
    apart = ("apart", lambda best: chains(disagree=1.0))
    assert told(climbed(off, apart, tolerance=0.3))[0] == ("off", "good")
    assert told(climbed(off, apart))[0] == ("off", "usable")
    near = climbed(("near", lambda best: posterior(shift=0.08)), apart, tolerance=0.02)
    assert told(near)[0] == ("near", "usable")
    assert near.info.rungs[0]["sentence"].startswith("near is usable at a tolerance of 0.02; by that of compare, ")
    with pytest.raises(ValueError, match=r"^fit: tolerance must be positive, got 0"):
        climbed(off, tolerance=0.0)


def schools(error: Tensor, effect: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", len(error)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        theta = pyro.deterministic("theta", mu + tau * z)
        pyro.sample("effect", dist.Normal(theta, error), obs=effect)


def test_a_model_with_an_exact_answer() -> None:
    """The posterior of the mean and the log sd of a normal sample, by the conjugate prior's marginals."""
    y = torch.linspace(-1, 3, 12)

    def sample(y: Tensor) -> None:
        precision = pyro.sample("precision", dist.Gamma(3.0, 2.0))
        mean = pyro.sample("mean", dist.Normal(0.0, (2.0 * precision) ** -0.5))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(mean, precision**-0.5), obs=y)

    found = fit(sample, y, progress=False)
    assert found.info.judgement == "good"
    n, mean = len(y), float(y.mean())
    shape = 3 + n / 2
    rate = 2 + float((y - mean).square().sum()) / 2 + 2 * n * mean**2 / (2 * (2 + n))
    centre = n * mean / (2 + n)
    sd = math.sqrt(rate / ((n + 2) * (shape - 1)))  # of Student's t with 2 shape degrees of freedom
    x = found.draws["mean"].flatten()
    assert float(x.mean()) == pytest.approx(centre, abs=0.1 * sd)
    assert float(x.std()) == pytest.approx(sd, rel=0.1)
    precision = found.draws["precision"].flatten()
    assert float(precision.mean()) == pytest.approx(shape / rate, abs=0.1 * math.sqrt(shape) / rate)


def test_options_out_of_range_and_models_that_do_not_run() -> None:
    with pytest.raises(ValueError, match=r"^fit: tolerance must be positive, got 0"):
        fit(model, tolerance=0.0)
    with pytest.raises(ValueError, match=r"^fit: max_seconds must be positive, got -1"):
        fit(model, max_seconds=-1)
    with pytest.raises(ValueError, match=r"^fit: the model cannot be run"):
        fit(schools, torch.ones(3), torch.ones(2))
