"""The commands that judge without a reference: fit, check, and what run and compare say where there is none."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from guidebook.inference import Posterior


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
    assert set(record["rungs"][0]) == {"method", "seconds", "judgement", "sentence"}
    assert record["sentence"].startswith(record["chosen"])
    saved = Posterior.load(tmp_path / "r" / "posterior.safetensors")
    assert saved.info.chosen == record["chosen"]
    assert saved.info.rungs == record["rungs"]
    assert json.loads((tmp_path / "r" / "result.json").read_text()) == record
    status, out, err = call("fit", "logistic", "--data", file, "--set", "target=ill")
    assert status == 0, err
    assert out.rstrip().splitlines()[-1].startswith(record["chosen"])


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
    methods = {method["name"]: method for method in json.loads(out)["methods"]}
    assert methods["dadvi"]["judgement"] == "good"
    assert methods["dadvi"]["verdict"].startswith("dadvi is good")
    assert methods["svi:full_rank"]["verdict"].startswith("svi:full_rank is ")
