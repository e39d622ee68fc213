"""Gibbs sampling's loop, whatever the conditionals: sweeps, thinning, chains, and what it says of them."""

from functools import partial

import pytest
import torch
from torch import Tensor

from guidebook.inference import diagnostics, gibbs
from guidebook.models import GibbsSteps

State = dict[str, Tensor]
ANY = torch.zeros(1)


def counting(num_blocks: int = 1) -> GibbsSteps:
    """Steps whose one site counts conditionals."""

    def init(num_chains: int, x: Tensor) -> State:
        return {"count": 100.0 * torch.arange(num_chains), "hidden": torch.zeros(num_chains)}

    def conditional(state: State, x: Tensor) -> State:
        return {"count": state["count"] + 1}

    return GibbsSteps(init, (conditional,) * num_blocks, ("count",))


def test_sweeps_are_warmup_then_draws_times_thin() -> None:
    posterior = gibbs(counting(2), ANY, num_draws=3, num_warmup=5, num_chains=2, thin=4, progress=False)
    first = [2 * (5 + 4), 2 * (5 + 8), 2 * (5 + 12)]  # two conditionals per sweep
    assert posterior.draws["count"].tolist() == [first, [100 + value for value in first]]
    assert posterior.info.num_warmup == 5
    assert list(posterior.draws) == ["count"]
    plain = gibbs(counting(), ANY, num_draws=3, num_warmup=1, num_chains=1, progress=False)
    assert plain.draws["count"].tolist() == [[2, 3, 4]]


def normal(mean: float = 0.0) -> GibbsSteps:
    """Independent draws of z ~ Normal(mean x, 1), in chains that differ by ``mean``."""

    def init(num_chains: int, x: Tensor) -> State:
        return {"z": x.new_zeros(num_chains)}

    def conditional(state: State, x: Tensor) -> State:
        return {"z": torch.randn_like(state["z"]) + mean * torch.arange(len(state["z"]))}

    return GibbsSteps(init, (conditional,), ("z",))


def test_the_seed_decides() -> None:
    first, again, other = (gibbs(normal(), ANY, num_draws=3, seed=s, progress=False) for s in (1, 1, 2))
    assert torch.equal(first.draws["z"], again.draws["z"])
    assert not torch.equal(first.draws["z"], other.draws["z"])
    assert other.info.seed == 2


def test_data_are_prepared_once_in_float64() -> None:
    seen = []
    steps = normal()._replace(prepare=lambda x: seen.append(x.dtype) or (2 * x,), init=lambda n, x: {"z": x.expand(n)})
    posterior = gibbs(steps, torch.ones(1), num_draws=2, num_chains=3, progress=False)
    assert seen == [torch.float64]
    assert posterior.draws["z"].dtype == torch.float64


def test_it_converged_if_r_hat_is_at_most_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    run = partial(gibbs, normal(0.2), ANY, num_draws=400, progress=False)
    with pytest.warns(UserWarning, match=r"^gibbs: drew 400 .*; the chains have not mixed \(R̂ 1\.0\d+ at 'z'") as said:
        worst = float(run().info.r_hat["z"])
    assert [warning.filename for warning in said] == [__file__]
    assert 1.01 < worst < 1.1
    monkeypatch.setattr(diagnostics, "MAX_R_HAT", worst + 1e-6)
    assert run().info.converged
    monkeypatch.setattr(diagnostics, "MAX_R_HAT", worst - 1e-6)
    with pytest.warns(UserWarning, match="have not mixed"):
        assert not run().info.converged
    assert gibbs(normal(), ANY, num_draws=2000, progress=False).info.message == "drew 2000 in each of 4 chains"


def test_chains_that_never_moved_are_warned_of() -> None:
    stuck = normal()._replace(conditionals=(lambda state, x: {"z": state["z"].new_tensor([1.0, 2, 3, 3])},))
    with pytest.warns(UserWarning, match=r"^gibbs: drew 10 in each of 4 chains; 4 of 4 chains never moved$"):
        assert not gibbs(stuck, ANY, num_draws=10, progress=False).info.converged


def test_a_conditional_that_is_not_finite_is_named() -> None:
    steps = normal()._replace(conditionals=(lambda state, x: {"z": state["z"] + torch.inf},))
    with pytest.raises(FloatingPointError, match=r"^gibbs: 'z' is not finite by sweep 50$"):
        gibbs(steps, ANY, num_draws=60, num_warmup=1, progress=False)


@pytest.mark.parametrize("name", ["num_draws", "num_warmup", "num_chains", "thin"])
def test_options_out_of_range(name: str) -> None:
    with pytest.raises(ValueError, match=f"^gibbs: {name} must be at least 1, got 0$"):
        gibbs(normal(), ANY, **{name: 0})
