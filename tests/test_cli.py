"""The command as a user meets it: what it writes, what it prints, and how it fails."""

import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from zoo.posteriors import by_nuts, by_svi

from guidebook import cli
from guidebook.catalog import METHODS, ROWS
from guidebook.inference import Posterior
from guidebook.inference.diagnostics import r_hat
from guidebook.workflow.command_line import command_line
from guidebook.workflow.files import atomic_write
from guidebook.workflow.fit import Task, load_task
from guidebook.workflow.output import run_json


class Ran:
    """Exit status, standard output and standard error of one call."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def run(*words: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["guidebook", *map(str, words)])
        with warnings.catch_warnings(), pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return Ran(int(stop.value.code or 0), captured.out, captured.err)

    return run


def test_inference_is_imported_without_what_is_slow_and_rarely_needed() -> None:
    slow = "{'pandas', 'matplotlib', 'sklearn', 'jax', 'arviz_stats', 'pyarrow', 'dask', 'torch._dynamo'}"
    code = f"import sys, guidebook.inference; assert not {slow} & set(sys.modules), {slow} & set(sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_help_is_there_without_torch() -> None:
    code = "import sys; sys.argv = ['guidebook', '--help']\nfrom guidebook.cli import main\n"
    code += "try: main()\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'pyro', 'sklearn', 'pandas', 'matplotlib'} & set(sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    for command in ("list", "run", "compare"):
        assert command in ran.stdout


def test_list(call) -> None:
    record = json.loads(call("list", "--json", "-").out)
    assert [row["model"] for row in record] == list(ROWS)
    by_name = {row["model"]: row for row in record}
    assert "full_rank" in by_name["logistic"]["guides"]
    assert by_name["gmm"]["options"]["covariance"]["default"] == "full"
    text = call("list").out
    assert "breast_cancer" in text
    assert "no em: " in text


def test_run_prints_and_writes_the_promised_json(call, tmp_path: Path) -> None:
    ran = call("run", "gmm", "--method", "em", "--out", tmp_path / "a", "--json", "-", "--set", "num_components=2")
    assert ran.status == 0, ran.err
    record = json.loads(ran.out)
    keys = (
        "model method guide data source settings encoding standardized seed seconds engine converged stopped_because "
        "log_likelihood log_evidence elbo k_hat judgement sentence reading findings"
    )
    assert list(record) == [*keys.split(), "parameters"]
    assert record["model"] == "gmm"
    assert record["standardized"] is False
    assert record["elbo"] is None
    assert np.shape(record["parameters"]["loc"]["mean"]) == (2, 4)
    assert record["parameters"]["loc"]["sd"] is None
    assert json.loads((tmp_path / "a" / "result.json").read_text()) == record
    saved = Posterior.load(tmp_path / "a" / "posterior.safetensors")
    assert torch.allclose(
        saved.draws["loc"][0, 0],
        torch.tensor(record["parameters"]["loc"]["mean"], dtype=torch.float64)[[*_order(saved, record)]],
    )
    assert not [file for file in (tmp_path / "a").iterdir() if file.name.startswith(".")]


def _order(saved: Posterior, record: dict) -> list[int]:
    """EM's components may be listed in another order than they were found in."""
    ours = saved.draws["loc"][0, 0]
    theirs = torch.tensor(record["parameters"]["loc"]["mean"], dtype=torch.float64)
    return [int((theirs - row).abs().sum(1).argmin()) for row in ours]


def test_same_command_same_numbers(call) -> None:
    command = ("run", "logistic", "--method", "svi:full_rank", "--steps", "60", "--json", "-")
    first, again, other = (json.loads(call(*command, "--seed", s).out) for s in ("1", "1", "2"))
    assert first["parameters"] == again["parameters"]
    assert first["parameters"] != other["parameters"]
    assert first["guide"] == "full_rank"
    assert first["k_hat"] is not None
    assert len(first["parameters"]["w"]["mean"]) == 31


def test_a_users_file_with_a_named_target(call, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 2))
    labels = np.where(rng.random(80) < 1 / (1 + np.exp(-2 * x[:, 0])), "yes", "no")
    file = tmp_path / "mine.csv"
    file.write_text("a,b,bought\n" + "".join(f"{u},{v},{w}\n" for (u, v), w in zip(x, labels, strict=True)))
    ran = call(
        "run",
        "logistic",
        "--method",
        "laplace",
        "--data",
        file,
        "--set",
        "target=bought",
        "--steps",
        "1500",
        "--json",
        "-",
    )
    assert ran.status == 0, ran.err
    record = json.loads(ran.out)
    assert record["standardized"] is True
    mean, sd = record["parameters"]["w"]["mean"][1], record["parameters"]["w"]["sd"][1]
    assert 0.5 < mean - 0 < 2 * 2
    assert 0.1 < sd < 0.8


@pytest.mark.slow
def test_compare_writes_a_report(call, tmp_path: Path) -> None:
    ran = call(
        "compare", "gmm", "--methods", "svi:mean_field,em,map", "--steps", "300", "--out", tmp_path / "r", "--json", "-"
    )
    assert ran.status == 0, ran.err
    record = json.loads(ran.out)
    assert record["reference"] == "svi:mean_field"
    assert [m["name"] for m in record["methods"]] == ["svi:mean_field", "em", "map"]
    for method in record["methods"]:
        assert {"name", "seconds", "elbo", "k_hat", "verdict", "worst", "quantities"} <= set(method)
        assert method["worst"]["quantity"] in method["quantities"]
        assert set(method["quantities"]["loc[0,0]"]) == {"mean_shift_in_sd", "sd_ratio", "mcse_in_sd"}
    html = (tmp_path / "r" / "report.html").read_text()
    assert record["methods"][1]["name"] in html
    index = tmp_path / "index.html"
    assert call("index", tmp_path / "r", "--out", index).status == 0
    assert 'href="r/report.html"' in index.read_text()
    explorer = tmp_path / "explorer.html"
    assert call("explore", tmp_path, "--out", explorer).status == 0
    assert re.search(r'"label":"loc\[0,[^}]*"curves":\{"svi:mean_field":\[\d', explorer.read_text())


def bad_files(folder: Path) -> dict[str, Path]:
    texts = {
        "empty": "",
        "header": "a,b\n",
        "ragged": "a,b\n1,2\n3\n",
        "text": "a,b\n1,2\n3,four\n",
        "missing": "a,b\n1,2\n3,\n",
        "infinite": "a,b\n1,2\n3,inf\n",
    }
    files = {}
    for name, text in texts.items():
        files[name] = folder / f"{name}.csv"
        files[name].write_text(text)
    files["not_numpy"] = folder / "not.npy"
    files["not_numpy"].write_bytes(b"\x89PNG....")
    return files


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("run gmmm", "unknown model 'gmmm': did you mean gmm?"),
        ("run gmm --method emm", "unknown method 'emm': did you mean em"),
        ("run gmm --method svi --guide mean_fild", "did you mean mean_field"),
        ("run gmm --method em --guide flow", "em takes no guide"),
        ("run logistic --method em", "logistic has no em: "),
        ("run ppca --method gibbs", "nearest is nuts"),
        ("run mixture --data wine --method em", "row 0, column 'alcohol' holds 14.23, but counts are whole numbers"),
        ("run logistic --set loss=elbo", "unknown loss 'elbo'"),
        ("run gmm --set covarianc=full", "did you mean covariance"),
        ("run gmm --set covariance=round", "unknown covariance 'round'"),
        ("run gmm --set num_components=0", "num_components must be at least 1"),
        ("run gmm --set num_components=151", "more than the 150 rows"),
        ("run gmm --data irsi", "did you mean iris?"),
        ("run gmm --data no/such.csv", "no such file"),
        ("run gmm --data {empty}", "empty"),
        ("run gmm --data {header}", "header"),
        ("run gmm --data {ragged}", "line 3"),
        ("run gmm --data {text}", "column 'b'"),
        ("run gmm --data {missing}", "line 3"),
        ("run gmm --data {infinite}", "infinite"),
        ("run gmm --data {not_numpy}", "not.npy"),
        ("run logistic --data wine", "3 classes"),
        ("run gmm --method em --out {folder}/text.csv/x", "text.csv"),
        ("run gmm --method em --json {folder}/none/x.json", "there is no folder"),
        ("run gmm --seed -1", "--seed"),
        ("run gmm --steps 0", "--steps"),
        ("run gmm --device tpu", "must be cpu or cuda"),
        ("run gmm --nonsense", "No such option"),
        ("run", "Missing argument"),
        ("fits gmm", "No such command"),
        ("compare gmm --methods nuts", "needs two or more"),
        ("compare gmm --methods em,map --reference nuts", "unknown reference"),
        ("index {folder} --out {folder}/i.html", "holds no comparison"),
    ],
)
def test_a_mistake_gets_one_sentence_and_leaves_nothing(call, tmp_path: Path, words: str, sentence: str) -> None:
    files = bad_files(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    ran = call(*(word.format(folder=tmp_path, **files) for word in words.split()))
    assert ran.status == 2
    assert ran.out == ""
    assert ran.err.count("\n") == 1
    assert ran.err.startswith("guidebook: ")
    assert sentence in ran.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_warning_is_printed_once_however_often_a_fit_gives_it(call, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `cavi` does at every restart."""

    def restarts(*_: object) -> int:
        for sentence in ("lda: 2 documents are empty", "lda: 2 documents are empty", "lda: one word is unused"):
            warnings.warn_explicit(sentence, UserWarning, "inputs.py", 1, module="guidebook.models.lda")
        return 0

    monkeypatch.setattr(cli, "_run", restarts)
    lines = ["guidebook: warning: lda: 2 documents are empty", "guidebook: warning: lda: one word is unused"]
    assert call("list").err.splitlines() == lines
    assert call("list").err.splitlines() == lines  # of each command anew


@pytest.mark.parametrize(
    ("program", "is_ours"),
    [("bin/guidebook", True), ("lib/guidebook/__main__.py", True), ("lib/pytest/__main__.py", False), ("me.py", False)],
)
def test_only_our_own_command_is_named_on_a_page(program: str, is_ours: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [program, "index", "a b"])
    assert command_line() == ("guidebook index 'a b'" if is_ours else None)


def test_a_failed_fit_is_status_one_and_leaves_nothing(call, tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", np.repeat(np.eye(3), 4, axis=0)[:, :2] + 1e-9 * np.arange(24).reshape(12, 2))
    ran = call("run", "gmm", "--data", tmp_path / "flat.npy", "--method", "em", "--out", tmp_path / "out" / "deep")
    assert ran.status == 1
    assert "reached an optimum" in ran.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("where", [("--out", "text.csv/x"), ("--json", "none/x.json"), ("--device", "tpu")])
def test_what_cannot_be_written_is_refused_before_the_fit(call, tmp_path: Path, monkeypatch, where) -> None:
    def reached(*_, **__):
        raise AssertionError

    bad_files(tmp_path)
    monkeypatch.setitem(METHODS, "em", METHODS["em"]._replace(function=reached))
    option, value = where
    assert call("run", "gmm", "--method", "em", option, value if option == "--device" else tmp_path / value).status == 2


def test_an_interrupted_fit_leaves_nothing(call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setitem(METHODS, "em", METHODS["em"]._replace(function=interrupted))
    ran = call("run", "gmm", "--method", "em", "--out", tmp_path / "out")
    assert ran.status == 130
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("exists", [False, True])
def test_a_failed_report_leaves_the_folder_as_it_was(call, tmp_path: Path, monkeypatch, exists: bool) -> None:
    def broken(*_, **__):
        raise OSError("no space left")

    out = tmp_path / "out"
    if exists:
        out.mkdir()
        (out / "comparison.json").write_text("old")
    monkeypatch.setattr("guidebook.report.write_html", broken)
    ran = call("compare", "gmm", "--methods", "em,closed_form", "--out", out)
    assert (ran.status, "gmm has no closed_form" in ran.err) == (2, True)
    ran = call("compare", "gmm", "--methods", "em,cavi", "--out", out)
    assert (ran.status, "no space left" in ran.err) == (2, True)
    assert sorted(tmp_path.rglob("*")) == ([out, out / "comparison.json"] if exists else [])
    assert not exists or (out / "comparison.json").read_text() == "old"


def test_what_is_written_replaces_files_whole(tmp_path: Path) -> None:
    assert atomic_write(tmp_path / "a" / "b.txt", "new").read_text() == "new"
    with pytest.raises(UnicodeEncodeError):
        atomic_write(tmp_path / "a" / "b.txt", "half \ud800")
    assert [(file.name, file.read_text()) for file in (tmp_path / "a").iterdir()] == [("b.txt", "new")]


def chains(shift: float) -> dict[str, torch.Tensor]:
    """Four chains of independent normal draws, one of which is shifted by some sds."""
    draws = torch.randn(4, 2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return {"w": draws + shift * torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)[:, None]}


def without_findings() -> Task:
    """A task whose draws need not be of its model."""
    task = load_task("logistic")
    return task._replace(row=task.row._replace(findings=None))


@pytest.mark.parametrize(
    ("shift", "divergences", "converged"),
    [(0.0, 0, True), (0.23, 0, True), (0.28, 0, False), (2.0, 0, False), (0.0, 1, False)],
)
def test_samplers_converge_without_divergences_and_with_chains_that_agree(shift, divergences, converged) -> None:
    quantities = chains(shift)
    worst = float(r_hat(quantities["w"]))
    assert (worst <= 1.01) == (shift <= 0.23)
    assert shift not in (0.23, 0.28) or abs(worst - 1.01) < 0.003  # just below and just above
    task = without_findings()
    record = run_json(task, by_nuts(quantities, divergences=divergences, converged=not converged))
    assert record["converged"] is converged


def test_other_methods_say_themselves_whether_they_converged() -> None:
    task = without_findings()
    for converged in (True, False):
        assert run_json(task, by_svi(chains(2.0), converged=converged))["converged"] is converged
