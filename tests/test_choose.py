"""``guidebook choose``: planted numbers are found, in every model, and mistakes get a sentence."""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from guidebook import cli
from guidebook.catalog import ROWS
from guidebook.inference import Choice
from guidebook.models import gmm, lda, mixture, ppca
from guidebook.workflow import choose as choosing
from guidebook.workflow.choose import choose, plan
from guidebook.workflow.folds import fold_of_row

QUICK = {"draws": 100, "warmup": 100}


def saved(folder: Path, x: torch.Tensor) -> str:
    np.save(folder / "x.npy", x.numpy())
    return str(folder / "x.npy")


def chosen(model: str, *settings: str, **how) -> Choice:
    return choose(plan(model, settings, **how))


@pytest.fixture
def clusters(tmp_path: Path) -> str:
    """Three well-separated normal clusters."""
    return saved(tmp_path, gmm.simulate(120, num_components=3, covariance="isotropic", separation=12.0, seed=1)[0])


def test_three_clusters_are_three_components(clusters: str) -> None:
    choice = chosen("gmm", "num_components=2..4", "covariance=isotropic", "thin=1", data=clusters, **QUICK)
    assert choice.chosen == 3
    assert choice.table.index.tolist() == [2, 3, 4]
    assert choice.table["bic"].idxmax() == choice.table["icl"].idxmax() == 3
    assert choice.sentence.startswith("num_components=3 is chosen by PSIS-LOO: 2 is worse")
    assert (choice.table["seconds"] > 0).all()


def test_folds_agree_and_a_point_has_no_leave_one_out(clusters: str) -> None:
    made = plan("gmm", ["num_components=2..4", "covariance=isotropic"], data=clusters, method="em")
    assert made.how == "10-fold cross-validation"
    assert choose(made).chosen == 3
    assert plan("gmm", ["num_components=2..4"], data=clusters, method="em", folds=3).how == "3-fold cross-validation"
    assert plan("gmm", ["num_components=2..4"], data=clusters, folds=3).how == "3-fold cross-validation"
    assert plan("gmm", ["num_components=2..4"], data=clusters).how == "PSIS-LOO"


def test_four_segments_of_customers(tmp_path: Path) -> None:
    data = saved(tmp_path, mixture.simulate(150, num_components=4, seed=0)[0])
    choice = chosen("mixture", "num_components=3,4,5", "thin=1", data=data, **QUICK)
    assert choice.chosen == 4
    assert choice.table["bic"].idxmax() == 4


def test_the_dimension_of_a_plane(tmp_path: Path) -> None:
    x, _ = ppca.simulate(200, latent_dim=3, num_features=8, seed=1)
    data = saved(tmp_path, x)
    made = plan("ppca", ["latent_dim=1..5", "standardize=false"], data=data, method="closed_form")
    choice = choose(made)
    assert choice.chosen == 3
    assert choice.table["laplace_evidence"].idxmax() == 3
    fold = torch.from_numpy(made.folds == 0)
    sites = ppca.maximum_likelihood(made.task.args[0][~fold], 3)
    by_hand = ppca.log_likelihood(sites, made.task.args[0][fold])
    assert np.allclose(choice.scores[3].pointwise[fold], by_hand)
    assert choice.table["num_parameters"].is_monotonic_increasing


def test_the_number_of_topics(tmp_path: Path) -> None:
    x, _ = lda.simulate(60, num_topics=3, num_features=30, mean_total=80.0, seed=2)
    choice = chosen("lda", "num_topics=1,3", data=saved(tmp_path, x), folds=2)
    assert choice.chosen == 3
    assert choice.table.loc[3, "perplexity"] < choice.table.loc[1, "perplexity"] <= 30.5
    assert choice.table["perplexity_error"].between(0.1, 3).all()


def test_an_autoencoder_by_its_evidence(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = (torch.rand(60, 1) < 0.5).double().expand(60, 6).contiguous()
    choice = chosen(
        "vae", "latent_dim=1,2", "network=linear", data=saved(tmp_path, x), folds=2, steps=20, method="svi:encoder"
    )
    assert np.isfinite(choice.table["elpd"]).all()
    assert -6 * np.log(2) * 60 - 60 < choice.table["elpd"].min() < choice.table["elpd"].max() < 0


def test_the_scale_of_a_prior_by_effective_parameters(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 3))
    y = (rng.random(80) < 1 / (1 + np.exp(-2 * x[:, 0]))).astype(float)
    np.savez(tmp_path / "xy.npz", x=x, y=y)
    made = plan("logistic", ["prior_scale=.01,1,3", "thin=1"], data=str(tmp_path / "xy.npz"), draws=200, warmup=100)
    choice = choose(made)
    assert choice.chosen == 1.0
    assert choice.table["num_parameters"].is_monotonic_increasing
    assert "0.01 is worse" in choice.sentence
    folds = plan("logistic", ["prior_scale=.01,1"], data=str(tmp_path / "xy.npz"), folds=4).folds
    for fold in range(4):
        assert abs(y[folds == fold].sum() - y.sum() / 4) < 1


def test_a_failed_fit_is_left_out_and_said(clusters: str) -> None:
    choice = chosen("gmm", "num_components=2,3,20", data=clusters, method="em", folds=2)
    assert choice.chosen == 3
    assert choice.table.index.tolist() == [2, 3]
    assert any(note.startswith("num_components=20: no fit: em: none of 10 restarts") for note in choice.notes)
    with pytest.raises(ArithmeticError, match="fewer than two fits succeeded"):
        chosen("gmm", "num_components=3,20,21", data=clusters, method="em", folds=2)


@pytest.mark.slow
def test_processes_give_the_same_numbers(clusters: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan("gmm", ["num_components=2..3", "thin=1"], data=clusters, **QUICK)
    alone = choose(made).table
    monkeypatch.setattr(choosing, "SECONDS_TO_START", -1.0)
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)
    assert choose(made).table.drop(columns="seconds").equals(alone.drop(columns="seconds"))


def test_rows_are_dealt_evenly_and_by_the_seed() -> None:
    folds = fold_of_row(4, 30, None, 0)
    assert sorted(np.bincount(folds)) == [7, 7, 8, 8]
    assert (folds == fold_of_row(4, 30, None, 0)).all()
    assert (folds != fold_of_row(4, 30, None, 1)).any()
    assert fold_of_row(30, 30, None, 0).max() == 29


def test_every_models_own_method_is_one_it_has() -> None:
    for row in ROWS.values():
        for method in (row.choosing.method, *row.choosing.methods):
            assert method.partition(":")[0] not in row.unavailable, row.name
            assert method.partition(":")[2] in ("", *row.guides), row.name
        assert set(row.choosing.incomparable) <= set(row.options), row.name


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["guidebook", "choose", *map(str, words)])
        with warnings.catch_warnings(), pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return run


def test_the_command_writes_page_picture_and_json(call, clusters: str, tmp_path: Path) -> None:
    words = ("gmm", "--set", "num_components=1..3", "--method", "em", "--folds", 2, "--data", clusters)
    status, out, err = call(*words, "--out", tmp_path / "out", "--json", "-")
    assert status == 0, err
    record = json.loads(out)
    assert json.loads((tmp_path / "out" / "choice.json").read_text()) == record
    keys = "model data standardized method seed rows option criterion chosen best sentence notes rule values"
    assert list(record) == keys.split()
    assert record["chosen"] == 3
    assert [value["value"] for value in record["values"]] == [1, 2, 3]
    assert {"elpd", "error", "difference", "difference_error", "num_parameters", "bic", "icl"} <= set(
        record["values"][0]
    )
    page = (tmp_path / "out" / "choice.html").read_text().replace("\u00a0", " ")
    assert record["sentence"] in page
    assert "<svg" in page
    assert (tmp_path / "out" / "choice.png").stat().st_size > 10_000
    status, out, _ = call(*words)
    assert record["sentence"] in out
    assert "BIC" in out
    assert "3 ◂" in out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("gmm", "give one option several values"),
        ("gmm --set num_components=3", "give one option several values"),
        ("gmm --set num_components=8..1", "runs backwards: write num_components=1..8"),
        ("gmm --set num_components=a..b", "num_components=a..b is no range"),
        ("gmm --set num_components=1...3", "is no range"),
        ("gmm --set num_components=3..3", "holds one value"),
        ("gmm --set num_components=1,1", "has 1 twice"),
        ("gmm --set num_components=1,,2", "empty value"),
        ("gmm --set num_components=1,x", "num_components must be a whole number, got 'x'"),
        ("gmm --set num_components=0..3", "num_components must be at least 1"),
        ("gmm --set num_components=1..101", "holds 101 values, and at most 100"),
        ("gmm --set num_components=149..151", "more than the 150 rows"),
        ("gmm --set num_components=75..76 --folds 2", "num_components=76 is more than the 75 rows"),
        ("gmm --set num_component=1..3", "did you mean num_components?"),
        ("gmm --set num_components=1..3 --set covariance=full,tied", "varies one option at a time"),
        ("gmm --set num_components=1..3 --set num_components=4", "num_components is given twice"),
        ("gmm --set covariance=full..tied", "A..B counts whole numbers, and covariance is none"),
        ("gmm --set covariance=full,round", "unknown covariance 'round'"),
        ("gmm --set lr=.1,.2", "lr is an option of a method"),
        ("gmm --set num_components=1..3 --folds 151", "--folds must lie between 2 and the number of rows, 150"),
        ("gmm --set num_components=1..3 --method closed_form", "gmm has no closed_form"),
        ("mixture --set family=poisson,multinomial", "cannot be compared: a multinomial's densities"),
        ("vae --set binarise=threshold,fixed", "cannot be compared: it changes the data"),
        ("vae --set latent_dim=1,2 --method svi:flow_encoder", "take svi:encoder or"),
        ("ppca --set latent_dim=11..13", "latent_dim must lie between 1 and one less than the number of columns, 13"),
    ],
)
def test_a_mistake_gets_one_sentence_before_any_fit(call, monkeypatch, words: str, sentence: str) -> None:
    def reached(*_, **__):
        raise AssertionError

    monkeypatch.setattr(choosing, "run_jobs", reached)
    status, out, err = call(*words.split())
    assert (status, out) == (2, "")
    assert err.startswith("guidebook: ")
    assert err.count("\n") == 1
    assert sentence in err


def test_a_value_that_rules_the_method_out_is_refused_before_any_fit() -> None:
    with pytest.raises(ValueError, match="linear has no gibbs: the horseshoe's scales have no conditionals"):
        plan("linear", ["prior=normal,horseshoe"])
    assert plan("linear", ["prior=normal,horseshoe"], method="nuts").folds is None
    assert plan("linear", ["prior_scale=1,2"], method="closed_form").folds is None  # draws, not a point
    assert plan("ppca", ["latent_dim=1,2"], method="closed_form").folds is not None


def test_rows_of_a_continuous_target_are_dealt_at_random() -> None:
    one, two = (plan("linear", ["prior_scale=1,2"], folds=4, seed=seed).folds for seed in (0, 1))
    assert (one != two).mean() > 0.6  # 3/4, if at random
