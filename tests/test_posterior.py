"""A posterior survives the disk; ArviZ and Pyro can read it."""

import json
from pathlib import Path

import pytest
import torch
from pyro.infer import Predictive
from safetensors.torch import save_file
from zoo import linear
from zoo.made import posterior_of

from guidebook import guides
from guidebook.inference import Posterior, digests, em, nuts, svi
from guidebook.inference.digests import data_sha256, fitted_sha256
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


@pytest.mark.filterwarnings("ignore:nuts.*not mixed")  # of a short run
def test_saved_and_loaded_it_is_the_same(tmp_path: Path, iris: torch.Tensor) -> None:
    for posterior in fits(iris):
        file = tmp_path / "folder" / f"{posterior.info.method}.safetensors"
        posterior.save(file)
        again = Posterior.load(file)
        assert type(again.info) is type(posterior.info)
        assert equal(dict(again.draws), dict(posterior.draws))
        assert equal(dict(again.params), dict(posterior.params))
        assert equal(vars(again.info), vars(posterior.info))


@pytest.mark.parametrize("part", ["draws", "about"])
def test_a_flipped_bit_is_noticed(tmp_path: Path, iris: torch.Tensor, part: str) -> None:
    """In the numbers, where nothing else would tell it, and in what is said of them."""
    file = tmp_path / "p.safetensors"
    em(gmm.em_steps(2), iris, num_restarts=1).save(file, about={"note": "whole"})
    content = file.read_bytes()
    place = content.index(b"whole") if part == "about" else len(content) - 9
    file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(ValueError, match=r"p\.safetensors is damaged: its checksum is not that of what it holds"):
        Posterior.load(file)


def test_a_posterior_knows_the_digest_of_its_data(tmp_path: Path, iris: torch.Tensor) -> None:
    """The same as in a command's record, however the data were given, kept on disk, and by checkpoints."""
    steps, expected = gmm.em_steps(2), data_sha256((iris,))
    options = {"num_restarts": 1, "checkpoint": tmp_path / "kept"}
    posteriors = [em(steps, iris, **options), em(steps, iris, **options), em(steps, iris.numpy(), num_restarts=1)]
    posteriors[0].save(tmp_path / "p")
    posteriors.append(Posterior.load(tmp_path / "p"))
    assert [each.info.data_sha256 for each in posteriors] == [expected] * 4
    assert em(steps, iris + 1, num_restarts=1).info.data_sha256 != expected


def test_data_that_are_large_or_no_plain_values_have_no_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.ones(2, 2)
    assert fitted_sha256((x, None, 3, "word")) == data_sha256((x, None, 3, "word"))
    for other in ((x, object()), (x.to_sparse(),), (), (3,)):
        assert fitted_sha256(other) is None
    monkeypatch.setattr(digests, "MOST_BYTES", 16)
    assert fitted_sha256((x,)) == data_sha256((x,))
    assert fitted_sha256((x, torch.ones(1))) is None


def test_a_file_saved_before_fields_were_renamed_is_read(tmp_path: Path) -> None:
    optimum = {"objective": -1.0, "restarts": 2, "flaw": None}
    info = {"method": "em", "seed": 3, "seconds": 0.5, "converged": True, "log_likelihood": -1.0}
    saved = info | {"engine": "eager", "stopped_because": "level", "basins": [optimum]}
    tensors = {"draws/loc": torch.ones(1, 1, 2), "info/objective": torch.tensor([-2.0, -1.0])}
    save_file(tensors, tmp_path / "old", metadata={"guidebook": json.dumps(saved)})
    found = Posterior.load(tmp_path / "old").info
    assert (found.message, found.seed) == ("level", 3)
    assert found.optima == [{"objective": -1.0, "restarts": 2, "degenerate": None}]


@pytest.mark.filterwarnings("ignore:nuts.*not mixed")  # of a short run
def test_samples_are_the_draws_of_all_chains_in_a_row(iris: torch.Tensor) -> None:
    _, sampled, point = fits(iris)
    assert torch.equal(sampled.samples["w"], torch.cat(list(sampled.draws["w"])))
    assert sampled.samples["total"].shape == (60,)
    assert point.samples["loc"].shape == (1, 2, 4)
    torch.manual_seed(0)
    y = Predictive(linear.model, sampled.samples)(DATA[0])["y"]
    assert y.shape == (60, 60)
    noise = (y - sampled.samples["w"] @ DATA[0].mT) / linear.NOISE
    assert float(noise.std()) == pytest.approx(1, abs=4 / (2 * 3600) ** 0.5)


def test_entries_that_do_not_vary_are_summed_up_without_a_warning() -> None:
    """As values that were observed in part are, among those drawn."""
    frame = posterior_of(x=torch.stack([torch.zeros(2, 50), torch.randn(2, 50)], -1)).summary()
    assert frame.loc["x[0]", "mean"] == 0
    assert frame.loc["x[1]", "sd"] > 0


def test_what_is_no_posterior_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        Posterior.load(tmp_path / "nothing")
    noise = tmp_path / "noise.safetensors"
    noise.write_bytes(b"\x00" * 100)
    with pytest.raises(ValueError, match="not a posterior saved by guidebook"):
        Posterior.load(noise)


@pytest.mark.filterwarnings("ignore:nuts.*not mixed")  # of a short run
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
