"""``guidebook run`` on files that are read in blocks."""

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from guidebook import cli
from guidebook.inference import Posterior, em, stream
from guidebook.models import gmm, lda, mixture, ppca
from guidebook.workflow import blocks
from guidebook.workflow.blocks import in_blocks
from guidebook.workflow.manifest import read_run
from guidebook.workflow.rerun import repeat

ROWS = gmm.simulate(400, num_components=2, num_features=3, seed=3)[0]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command here; exit status, standard output and standard error."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["guidebook", "run", *words])
        with warnings.catch_warnings(), pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def run(call: Callable[..., tuple[int, str, str]]) -> Callable[..., dict]:
    """Run the command, and return its JSON."""

    def json_of(*words: str) -> dict:
        status, out, err = call(*words, "--json", "-")
        assert status == 0, err
        return json.loads(out)

    return json_of


def test_large_files_and_those_with_a_batch_size_are_read_in_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "x.npy", ROWS.numpy())
    (tmp_path / "x.csv").write_text("a\n1\n")
    file = str(tmp_path / "x.npy")
    assert not in_blocks(file, asked=False)
    assert in_blocks(file, asked=True)
    assert in_blocks(str(tmp_path), asked=False)
    assert not in_blocks(str(tmp_path / "x.csv"), asked=True)
    assert not in_blocks(None, asked=True)
    size = (tmp_path / "x.npy").stat().st_size
    for limit, found in ((size, True), (size + 1, False)):
        monkeypatch.setattr(blocks, "LARGE", limit)
        assert in_blocks(file, asked=False) == found


def test_em_of_the_command_is_that_of_python(tmp_path: Path, run: Callable[..., dict]) -> None:
    np.save(tmp_path / "x.npy", ROWS.numpy())
    words = ["gmm", "--method", "em", "--data", str(tmp_path / "x.npy"), "--set", "num_components=2"]
    found = run(*words, "--batch-size", "100", "--out", str(tmp_path / "out"))
    best = em(gmm.em_steps(2), ROWS).info.log_likelihood
    assert found["log_likelihood"] == pytest.approx(best, rel=1e-9)
    assert found["findings"] == ["400 rows were read in blocks of 400 at most (0.0 MiB)"]
    assert (found["judgement"], found["standardized"]) == (None, False)
    made = {"posterior.safetensors", "result.json", "parameters.csv", "rows.csv", "report.html", "run.json"}
    assert {file.name for file in (tmp_path / "out").iterdir()} == made
    assert "400 rows, 3 columns" in (tmp_path / "out" / "report.html").read_text()
    assert Posterior.load(tmp_path / "out" / "posterior.safetensors").params["loc"].shape == (2, 3)
    assert run(*words)["log_likelihood"] == pytest.approx(best, rel=1e-9)


def test_columns_are_standardized_by_all_rows(tmp_path: Path, run: Callable[..., dict]) -> None:
    x = ppca.simulate(300, latent_dim=2, num_features=5, seed=4)[0] * torch.arange(1.0, 6.0) + 1e6
    for part, rows in enumerate(x.split(130)):
        np.save(tmp_path / f"{part}.npy", rows.numpy())
    found = run("ppca", "--method", "em", "--data", str(tmp_path))
    z = (x - x.mean(0)) / x.std(0, correction=0)
    assert found["standardized"]
    assert found["log_likelihood"] == pytest.approx(float(ppca.maximum_likelihood(z)["log_likelihood"]), rel=1e-7)


def test_sparse_counts_and_labels_from_parquet(tmp_path: Path, run: Callable[..., dict]) -> None:
    counts = mixture.simulate(300, num_components=2, num_features=4, seed=2)[0]
    sparse.save_npz(tmp_path / "x.npz", sparse.csr_matrix(counts.numpy()))
    words = ["mixture", "--method", "em", "--data", str(tmp_path / "x.npz"), "--set", "num_components=2"]
    found = run(*words, "--batch-size", "50")
    assert found["log_likelihood"] == pytest.approx(em(mixture.em_steps(2), counts).info.log_likelihood, rel=1e-9)
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    y = (ROWS[:, 0] > 0).double().numpy()
    table = pyarrow.table({"a": ROWS[:, 0].numpy(), "b": ROWS[:, 1].numpy(), "y": y})
    parquet.write_table(table, tmp_path / "x.parquet")
    words = ["logistic", "--data", str(tmp_path / "x.parquet"), "--set", "target=y", "--steps", "500"]
    found = run(*words, "--batch-size", "64")
    assert found["standardized"]
    assert np.shape(found["parameters"]["w"]["mean"]) == (3,)
    _, a, b = found["parameters"]["w"]["mean"]
    assert a > 0.5 > abs(b)  # the labels are made of a
    assert stream(tmp_path / "x.parquet", target="y").shape == (400, 2)


def test_topics_of_sparse_counts_are_those_of_memory(tmp_path: Path, run: Callable[..., dict]) -> None:
    counts = lda.simulate(120, num_topics=2, num_features=9, seed=1)[0]
    sparse.save_npz(tmp_path / "x.npz", sparse.csr_matrix(counts.numpy()))
    words = ["lda", "--method", "cavi", "--data", str(tmp_path / "x.npz"), "--set", "num_topics=2", "--draws", "20"]
    whole = run(*words)
    found = run(*words, "--batch-size", "50", "--out", str(tmp_path / "out"))
    assert found["elbo"] == pytest.approx(whole["elbo"], rel=1e-9)
    assert list(found["parameters"]) == ["topic_words"]
    assert found["findings"][0].startswith("120 rows were read in blocks of 120 at most")
    rows = pd.read_csv(tmp_path / "out" / "rows.csv")
    topics = Posterior.load(tmp_path / "out" / "posterior.safetensors").draws["topic_words"][0].double()
    weights = lda.transform({"topic_words": topics}, counts).mean(0)
    np.testing.assert_allclose(rows[["topic_0", "topic_1"]], weights, atol=2e-3)


def test_rows_of_blocks_are_those_of_memory_and_the_run_is_repeated(
    tmp_path: Path, call: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From Parquet, in several blocks; and a file with one other number is not the data of then."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = {f"x{k}": ROWS[:, k].numpy().copy() for k in range(3)}
    np.savetxt(tmp_path / "x.csv", ROWS.numpy(), delimiter=",", header="x0,x1,x2", comments="", fmt="%.17g")
    parquet.write_table(pyarrow.table(table), tmp_path / "x.parquet", row_group_size=150)
    for name in ("x.csv", "x.parquet"):
        words = ["gmm", "--method", "em", "--data", str(tmp_path / name), "--set", "num_components=2"]
        assert call(*words, "--out", str(tmp_path / f"of {name}"))[0] == 0
    held, blocks = (pd.read_csv(tmp_path / f"of {name}" / "rows.csv") for name in ("x.csv", "x.parquet"))
    pd.testing.assert_frame_equal(held, blocks, rtol=1e-4, atol=1e-5)
    assert blocks["row"].tolist() == list(range(400))

    monkeypatch.setattr(sys, "argv", ["guidebook"])
    for changed in (False, True):
        if changed:
            table["x1"][333] += 1e-3
            parquet.write_table(pyarrow.table(table), tmp_path / "x.parquet", row_group_size=150)
        record, folder = read_run(tmp_path / "of x.parquet")
        found = repeat(record, tmp_path / "of x.parquet", folder)
        assert (found.same, found.same_data) == (not changed, not changed)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["logistic", "--batch-size", "10"], "run: which column of {} holds the labels? give --target NAME"),
        (["ppca", "--batch-size", "0"], "--batch-size"),
        (["mixture", "--batch-size", "10", "--method", "em"], "holds"),
        (["gmm", "--method", "nuts", "--batch-size", "10"], "nuts: all rows are needed at once"),
    ],
)
def test_mistakes_are_one_sentence(words: list[str], sentence: str, tmp_path: Path, call: Callable) -> None:
    np.save(tmp_path / "x.npy", ROWS.numpy())
    status, _, err = call(*words, "--data", str(tmp_path / "x.npy"))
    assert status == 2
    assert sentence.replace("{}", str(tmp_path / "x.npy")) in " ".join(err.split())
    assert "Traceback" not in err
