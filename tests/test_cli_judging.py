"""The commands that judge without a reference: fit, check, and what run and compare say where there is none."""

import csv
import json
import warnings
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch
from zoo.posteriors import by_nuts, by_svi

from guidebook.catalog import METHODS, ROWS
from guidebook.inference import FitInfo, Posterior, compare
from guidebook.workflow import ladder
from guidebook.workflow.fit import fit, load_task
from guidebook.workflow.output import fit_json


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Eighty rows of two features and a label that depends on one of them."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 2))
    y = (rng.uniform(size=80) < 1 / (1 + np.exp(-2 * x[:, 0]))).astype(int)
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["dose", "age", "ill"])
        writer.writerows([*row, label] for row, label in zip(x.round(3).tolist(), y.tolist(), strict=True))
    return path


QUANTITY = {"mean_shift_in_sd", "sd_ratio", "error_of_shift", "error_of_ratio"}


def test_fit_finds_the_cheapest_good_posterior(call, file: Path, tmp_path: Path) -> None:
    words = ["logistic", "--data", file, "--set", "target=ill", "--json", "-", "--out", tmp_path / "r"]
    status, out, err = call("fit", *words)
    assert status == 0, err
    record = json.loads(out)
    assert (record["method"], record["judgement"], record["converged"]) == ("fit", "good", True)
    assert record["rungs"][0]["method"] == "dadvi"
    assert set(record["rungs"][0]) == {"method", "seconds", "gradients", "judgement", "error", "sentence"}
    assert record["sentence"].startswith(record["chosen"])
    saved = Posterior.load(tmp_path / "r" / "posterior.safetensors")
    assert saved.info.chosen == record["chosen"]
    assert saved.info.rungs == record["rungs"]
    assert json.loads((tmp_path / "r" / "result.json").read_text()) == record
    page = (tmp_path / "r" / "report.html").read_text().replace("\u00a0", " ")
    assert record["sentence"] in unescape(page)
    assert "w[dose]" in page
    assert "Worst error and seconds" in page
    status, out, err = call("fit", "logistic", "--data", file, "--set", "target=ill")
    assert status == 0, err
    assert out.rstrip().splitlines()[-1].startswith(record["chosen"])
    assert "w[dose]" in out  # a name in brackets is no style


def test_where_nothing_is_good_it_says_what_was_tried_and_what_to_do(call, file: Path, tmp_path: Path) -> None:
    counts = np.random.default_rng(0).poisson(10.0, size=(20, 12))
    np.save(tmp_path / "words.npy", counts)
    words = ["lda", "--data", tmp_path / "words.npy", "--set", "num_topics=4"]
    status, out, err = call("fit", *words, "--out", tmp_path / "r")
    assert status == 0, err
    record = json.loads((tmp_path / "r" / "result.json").read_text())
    assert (record["judgement"], record["converged"]) == ("cannot say", False)
    assert record["sentence"].startswith("nothing was found good. gibbs is not to be believed: its chains disagree (")
    assert record["sentence"].endswith(
        "Next: guidebook choose lda, by held-out perplexity; chains settle on different topics, each as likely."
    )
    assert record["sentence"] in out
    assert f"report: {tmp_path / 'r' / 'report.html'}" in out
    assert "Error against seconds" not in (tmp_path / "r" / "report.html").read_text()


def test_moved_draws_are_not_judged_by_the_r_hat_of_their_short_chains() -> None:
    draws = {"w": torch.arange(4.0)[:, None, None] + torch.randn(4, 30, 31)}
    task = load_task("logistic")
    record = {"seed": 0, "seconds": 1.0, "converged": True, "message": "", "judgement": "good", "rungs": []}
    for chosen, shown in (("dadvi, moved", False), ("nuts", True)):
        fit = Posterior(draws, FitInfo(**record, chosen=chosen))  # pyright: ignore[reportArgumentType]
        assert (fit_json(task, fit)["parameters"]["w"]["r_hat"] is not None) == shown


def test_check_judges_a_saved_fit_and_a_model(call, file: Path, tmp_path: Path) -> None:
    options = ["--data", file, "--set", "target=ill"]
    narrow = ["logistic", "--method", "svi:mean_field", "--steps", "300", *options, "--out", tmp_path / "r"]
    status, out, err = call("run", *narrow)
    assert status == 0, err
    first = json.loads((tmp_path / "r" / "result.json").read_text())
    assert first["sentence"] in out
    status, out, err = call("check", tmp_path / "r", "--json", "-", "--out", tmp_path / "c")
    assert status == 0, err
    record = json.loads(out)
    assert list(record) == ["model", "data", "method", "judgement", "sentence", "quantities"]
    assert (record["model"], record["method"]) == ("logistic", "svi:mean_field")
    assert record["judgement"] == first["judgement"]
    assert all(set(figures) == QUANTITY for figures in record["quantities"].values())
    assert len(record["quantities"]) == 3
    assert Posterior.load(tmp_path / "c" / "improved.safetensors").info.method == "check"
    status, out, err = call("check", "logistic", "--method", "dadvi", *options)
    assert status == 0, err
    assert "dadvi is good" in out


def test_a_samplers_run_is_judged_by_its_own_chains(call, file: Path, tmp_path: Path) -> None:
    options = ["--data", file, "--set", "target=ill", "--method", "gibbs"]
    status, out, err = call("run", "logistic", *options, "--draws", "1000", "--out", tmp_path / "a")
    assert status == 0, err
    assert "gibbs is good: R̂ at most 1.00" in out
    page = (tmp_path / "a" / "report.html").read_text()
    assert '<span class="badge good">good</span>' in page
    assert f"<code>guidebook run logistic --data {file}" in page
    record = json.loads((tmp_path / "a" / "result.json").read_text())
    assert (record["judgement"], record["sentence"] in out) == ("good", True)


def test_few_draws_of_a_sampler_are_judged_alike_by_run_and_by_check(call, file: Path, tmp_path: Path) -> None:
    """Chains that are merely short do not say that their draws are wrong: short chains from these tell."""
    options = ["--data", file, "--set", "target=ill", "--method", "gibbs", "--draws", "90", "--chains", "4"]
    status, _, err = call("run", "logistic", *options, "--out", tmp_path / "a")
    assert status == 0, err
    record = json.loads((tmp_path / "a" / "result.json").read_text())
    assert record["judgement"] in ("good", "usable")
    assert "By its own chains it may not judge others: " in record["sentence"]
    assert "it has too few effective draws (" in record["sentence"]
    status, again, err = call("check", tmp_path / "a")
    assert status == 0, err
    assert record["sentence"] in again
    assert ".improved" not in again


def test_chains_apart_are_not_to_be_believed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short chains from draws in several places cannot tell how much mass each has, and are not asked."""
    task = load_task("logistic", str(file), ["target=ill"])
    monkeypatch.setattr(ladder, "judge", None)  # not called
    draws = torch.randn(4, 60, 3, dtype=torch.float64) + torch.arange(4.0, dtype=torch.float64)[:, None, None]
    found = ladder.judge_alone(task, by_nuts({"w": draws}))
    assert found is not None
    assert (found.judgement, found.sentence[:42]) == ("cannot say", "nuts is not to be believed: its chains dis")
    diverged = ladder.judge_alone(task, by_nuts({"w": torch.randn(4, 60, 3, dtype=torch.float64)}, divergences=1))
    assert diverged is not None
    assert diverged.sentence.startswith("nuts is not to be believed: ")


def test_a_model_without_nuts_is_not_told_to_take_it() -> None:
    row, w = ROWS["autoregressive"], torch.full((1, 1, 2), 0.5)
    points = [by_svi({"w": w + k}, "map_point", is_point=True) for k in range(2)]
    found = ladder.with_commands_there_are(compare(*points, names=["map", "other"]), row)
    assert found.verdicts["map"].sentence.endswith(f"to measure others by. Next: {row.otherwise}.")
    assert "nuts" in compare(*points).verdicts["svi:map_point"].sentence


def test_verdicts_of_the_command_advise_commands() -> None:
    generator = torch.Generator().manual_seed(0)
    chains = by_nuts({"w": torch.randn(4, 400, 2, generator=generator, dtype=torch.float64)})
    narrow = by_svi({"w": 0.3 * torch.randn(1, 1000, 2, generator=generator, dtype=torch.float64)}, "mean_field")
    found = compare(chains, narrow)
    words = ladder.with_commands_there_are(found, ROWS["logistic"]).verdicts["svi:mean_field"].sentence
    assert " Next: dadvi(model, …), or fit(model, …), which" in found.verdicts["svi:mean_field"].sentence
    assert " Next: guidebook run logistic … --method dadvi, or guidebook fit logistic …, which" in words


@pytest.mark.parametrize(("identified", "diverged"), [(True, False), (True, True), (False, False)])
def test_raw_sites_that_disagree_are_no_warning_where_others_are_judged(
    identified: bool, diverged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = "2 divergent transitions; " if diverged else ""
    message = f"nuts: drew 5 in each of 4 chains; {words}the chains have not mixed (R̂ 1.531 at 'W')"

    def sampler(*_, num_draws: int = 5) -> Posterior:
        warnings.warn(message, stacklevel=2)
        return by_nuts({"W": torch.randn(4, num_draws, 1)})

    monkeypatch.setitem(METHODS, "nuts", METHODS["nuts"]._replace(function=sampler))
    task = load_task("ppca", used=("nuts",))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(task if identified else task._replace(identify=None), "nuts", draws=5)
    assert [str(warning.message) for warning in caught] == [message] * (diverged or not identified)


@pytest.mark.parametrize("room", [0, -1])
def test_chains_with_too_many_numbers_are_not_judged(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = {"w": torch.randn(4, 500, 31, dtype=torch.float64)}
    monkeypatch.setattr(ladder, "MOST_VALUES", draws["w"].numel() + room)
    found = ladder.judge_alone(load_task("logistic"), by_nuts(draws))
    assert (found.judgement if found else None) == (None if room else "good")


def test_a_models_name_is_that_of_the_model_beside_a_folder_of_that_name(
    call, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "logistic").mkdir()
    monkeypatch.chdir(tmp_path)
    status, out, err = call("check", "logistic", "--method", "dadvi", "--data", file, "--set", "target=ill")
    assert status == 0, err
    assert "dadvi is good" in out


def test_limits_out_of_range_are_refused(call, file: Path) -> None:
    for option in ("--tolerance", "--max-seconds"):
        status, _, err = call("fit", "logistic", "--data", file, "--set", "target=ill", option, "0")
        assert (status, err.count("\n")) == (2, 1)
        assert f"{option[2:].replace('-', '_')} must be positive" in err


def test_a_folder_without_a_fit_is_refused(call, tmp_path: Path) -> None:
    status, _, err = call("check", tmp_path)
    assert (status, err.count("\n")) == (2, 1)
    assert f"{tmp_path} holds no fit: make one with guidebook run --out {tmp_path}" in err


def test_without_a_reference_each_fast_posterior_is_judged_alone(call, file: Path) -> None:
    options = ["--data", file, "--set", "target=ill", "--json", "-"]
    status, out, err = call("compare", "logistic", "--methods", "svi:full_rank,dadvi", "--steps", "300", *options)
    assert status == 0, err
    record = json.loads(out)
    methods = {method["name"]: method for method in record["methods"]}
    assert methods["dadvi"]["judgement"] == "good"
    assert record["headline"].endswith(" s, by short chains from its own draws.")
    assert methods["dadvi"]["verdict"].startswith("dadvi is good")
    assert methods["svi:full_rank"]["verdict"].startswith("svi:full_rank is ")
