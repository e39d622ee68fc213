"""What traces tell of models and guides: sites, draws under a plate, rows mapped or looped over."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormal
from torch import Tensor

from guidebook import guides
from guidebook.inference.traces import draws
from guidebook.inference.traces.draws import draw_chunk, draw_guide
from guidebook.inference.traces.guides import as_guide, clone_guide, display_name, is_family, is_point
from guidebook.inference.traces.prepare import prepare
from guidebook.inference.traces.sites import is_deterministic, is_latent, is_local, is_plate, nodes, plate_depth
from guidebook.inference.traces.vmap import map_rows


def model(x: Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    pyro.deterministic("twice", 2 * loc)
    pyro.param("scale", torch.tensor(1.0))
    with pyro.plate("columns", 2), pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(loc, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def test_every_kind_of_site() -> None:
    x = torch.zeros(3, 2)
    trace = poutine.trace(model).get_trace(x)
    sites = nodes(trace)

    def those(predicate) -> set[str]:
        return {name for name, site in sites.items() if predicate(site)}

    assert those(is_latent) == {"loc", "z"}
    assert those(is_deterministic) == {"twice"}
    assert those(is_plate) == {"columns", "rows"}
    assert those(lambda site: is_local(site, (x,))) == {"z", "x"}
    assert those(lambda site: is_local(site, ())) == set()
    assert plate_depth(trace) == 2


def test_rows_are_mapped_or_looped_over_alike() -> None:
    rows = {"a": torch.arange(6.0).reshape(3, 2), "b": torch.tensor([1.0, -1.0, 2.0])}

    def smooth(row: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sum": row["a"].sum() * row["b"].abs()}

    def branching(row: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sum": row["a"].sum() * (row["b"] if row["b"] > 0 else -row["b"])}

    expected = torch.tensor([1.0, 5.0, 18.0])
    for function in (smooth, branching):
        for chunk_size in (None, 1, 2):
            assert torch.equal(map_rows(function, rows, chunk_size=chunk_size)["sum"], expected)
    assert torch.equal(map_rows(lambda row: row.sum(), rows["a"]), torch.tensor([1.0, 5.0, 9.0]))


def chained(which: int | None) -> None:
    """Draw b given a; with an index, every draw's b under a plate is given the a of that one draw."""
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    pyro.sample("b", dist.Normal(a if which is None else a.reshape(-1)[which], 0.1))


@pytest.mark.parametrize("which", [0, -1])
def test_a_guide_that_mixes_its_draws_is_drawn_one_by_one(which: int) -> None:
    """The first draw is right for one of them, the last for the other: both ends are looked at."""
    pyro.set_rng_seed(0)
    values, log_q = draw_chunk(partial(chained, which), (), 200)
    assert (values["b"] - values["a"]).abs().max() < 5 * 0.1
    expected = dist.Normal(0.0, 1.0).log_prob(values["a"]) + dist.Normal(values["a"], 0.1).log_prob(values["b"])
    torch.testing.assert_close(log_q, expected)


def test_a_guide_that_does_not_mix_them_is_drawn_at_once() -> None:
    pyro.set_rng_seed(0)
    calls = []

    def guide() -> None:
        calls.append(1)
        chained(None)

    values, _ = draw_chunk(guide, (), 200)
    assert len(calls) == 4  # alone, under the plate, and replayed at either end
    assert (values["b"] - values["a"]).abs().max() < 5 * 0.1


def test_draws_come_in_chunks_that_join(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draws, "chunk_size_for", lambda data, latent: 3)
    x = torch.zeros(3, 2)

    def guide(x: Tensor) -> None:
        pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("columns", 2), pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    with pyro.get_param_store().scope():
        found = draw_guide(prepare("svi", model, (x,)).log_joint(), guide, 7)
    loc, z = found.sites["loc"], found.sites["z"]
    assert (loc.shape, z.shape) == ((7,), (7, 3, 2))
    assert torch.equal(found.sites["twice"], 2 * loc)
    standard = dist.Normal(0.0, 1.0)
    expected = dist.Normal(loc[:, None, None], 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(x) - standard.log_prob(z)
    torch.testing.assert_close(found.log_weights, expected.sum((1, 2)))


@pytest.mark.parametrize(("limit", "kept"), [(60, True), (59, False)])
def test_local_draws_are_kept_up_to_a_limit(limit: int, kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten draws of three rows by two: sixty numbers."""
    monkeypatch.setattr(draws, "MAX_LOCAL", limit)
    x = torch.zeros(3, 2)
    with pyro.get_param_store().scope():
        guide = guides.mean_field(poutine.block(model, hide=["scale"]))
        guide(x)
        assert ("z" in draw_guide(prepare("svi", model, (x,)).log_joint(), guide, 10, None).sites) == kept


def test_families_names_and_points() -> None:
    assert is_family(partial(guides.low_rank, rank=2))
    assert is_family(AutoNormal)
    assert not is_family(AutoNormal(model))
    assert not is_family(model)
    assert display_name(partial(partial(guides.low_rank, rank=2))) == "low_rank"
    assert display_name(AutoNormal(model)) == "AutoNormal"
    x = torch.zeros(3, 2)
    for family, point in ((guides.map_point, True), (guides.mean_field, False)):
        with pyro.get_param_store().scope():
            assert is_point(as_guide(family, model), (x,)) == point


def test_a_clone_of_an_autoguide_keeps_its_model_and_so_does_the_original() -> None:
    x = torch.zeros(3, 2)
    original = AutoNormal(model)
    clone = clone_guide(original)
    with pyro.get_param_store().scope():
        clone(x)
        assert original.prototype_trace is None
        assert set(original(x)) == {"loc", "z"}
