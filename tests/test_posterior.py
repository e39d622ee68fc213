"""A posterior survives the disk, and ArviZ can read it."""

from pathlib import Path

import pytest
import torch
from zoo import linear

from guidebook import guides
from guidebook.inference import Posterior, em, nuts, svi
from guidebook.models import gmm

DATA = linear.data()


def equal(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    return a == b


def fits(iris: torch.Tensor) -> list[Posterior]:
    return [
        svi(linear.model, guides.full_rank, *DATA, num_steps=50, progress=False),
        nuts(linear.model, *DATA, num_draws=30, num_warmup=30, num_chains=2, progress=False),
        em(gmm.em_steps(2), iris, num_restarts=2),
    ]


def test_saved_and_loaded_it_is_the_same(tmp_path: Path, iris: torch.Tensor) -> None:
    for posterior in fits(iris):
        file = tmp_path / "folder" / f"{posterior.info.method}.safetensors"
        posterior.save(file)
        again = Posterior.load(file)
        assert type(again.info) is type(posterior.info)
        assert equal(dict(again.draws), dict(posterior.draws))
        assert equal(dict(again.params), dict(posterior.params))
        assert equal(vars(again.info), vars(posterior.info))


def test_what_is_no_posterior_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        Posterior.load(tmp_path / "nothing")
    noise = tmp_path / "noise.safetensors"
    noise.write_bytes(b"\x00" * 100)
    with pytest.raises(ValueError, match="not a posterior saved by guidebook"):
        Posterior.load(noise)


def test_arviz_reads_it_and_it_sums_itself_up(iris: torch.Tensor) -> None:
    guided, sampled, point = fits(iris)
    tree = sampled.to_datatree()
    assert tree["posterior"]["w"].shape == (2, 30, 3)
    summary = sampled.summary()
    assert float(summary.loc["w[0]", "mean"]) == pytest.approx(float(sampled.draws["w"][..., 0].mean()), abs=0.01)
    assert "w[0]" in guided.summary().index
    with pytest.raises(ValueError, match="no spread"):
        point.summary()
    assert repr(sampled).startswith("Posterior by nuts: 2 × 30 draws of w (3,)")
