"""``guidebook sweep``: every cell is fitted once, wherever; what fails or is lost is retried and listed."""

import importlib.util
import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guidebook.workflow.sweep import in_words, summary, sweep
from guidebook.workflow.sweep_cells import Cell, sweep_cells
from guidebook.workflow.tasks import run_tasks

Call = Callable[..., tuple[int, str, str]]
OPTIONS: dict[str, Any] = {
    "counts": {"steps": None, "draws": 20, "warmup": None, "chains": None},
    "device": None,
    "judged": False,
}
ALONE = ("--workers", "1", "--no-judge")
SWEEP = ("linear,ppca", "laplace,pathfinder,dadvi", None, "0..1", ["latent_dim=1"])


def cells() -> list[Cell]:
    return sweep_cells(*SWEEP, **OPTIONS)[0]


def numbers(record: dict[str, Any]) -> list[tuple[Any, ...]]:
    kept = ("model", "method", "data", "seed", "elbo", "k_hat", "log_likelihood", "draws_sha256", "failed")
    return [tuple(cell[name] for name in kept) for cell in record["cells"]]


def test_cells_are_all_pairs_but_those_that_do_not_exist() -> None:
    found, gaps = sweep_cells(*SWEEP, **OPTIONS)
    names = [(cell.model, cell.method, cell.seed) for cell in found]
    methods = {"linear": ["svi:laplace", "pathfinder", "dadvi"], "ppca": ["pathfinder", "dadvi"]}
    assert names == [(model, method, seed) for model in methods for method in methods[model] for seed in (0, 1)]
    assert [(gap.model, gap.method) for gap in gaps] == [("ppca", "laplace")]
    assert "ppca has no laplace" in gaps[0].reason
    assert {cell.model: cell.settings for cell in found} == {"linear": (), "ppca": ("latent_dim=1",)}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("gmn,ppca",), "unknown model 'gmn': did you mean gmm?"),
        (("gmm,",), "MODELS: 'gmm,' has an empty name"),
        (("gmm,gmm",), "MODELS names gmm twice"),
        (("gmm", "emm"), "unknown method 'emm': did you mean em?"),
        (("ppca", "laplace"), "ppca has no laplace"),
        (("gmm", "svi,svi:mean_field"), "--methods names svi:mean_field twice"),
        (("gmm", None, "irs"), "unknown data set 'irs': did you mean iris?"),
        (("gmm", None, None, "1..0"), "--seeds: 1..0 must run upwards"),
        (("gmm", None, None, "one"), "--seeds takes A..B or a list such as 0,1,2; got 'one'"),
        (("gmm", None, None, "1,1"), "--seeds: 1,1 must be different numbers"),
        (("gmm", None, None, "0", ["latentdim=1"]), "unknown option of gmm 'latentdim'"),
        (("gmm,ppca", None, None, "0", ["latent_dim=x"]), "latent_dim must be a whole number"),
    ],
)
def test_mistakes_get_a_sentence(words: tuple, sentence: str) -> None:
    given = [*words, *(None, None, "0", [])[len(words) - 1 :]]
    with pytest.raises(ValueError, match=re.escape(sentence)):
        sweep_cells(*given, **OPTIONS)  # pyright: ignore


def test_a_sweep_is_a_table_a_page_and_a_file(call: Call, tmp_path: Path) -> None:
    words = ("sweep", "linear,ppca", "--methods", "laplace,closed_form", "--seeds", "0,1", *ALONE)
    status, out, err = call(*words, "--out", tmp_path / "s", "--json", tmp_path / "a.json")
    assert status == 0, err
    record = json.loads((tmp_path / "a.json").read_text())
    assert record == json.loads((tmp_path / "s" / "sweep.json").read_text())
    assert [row["fits"] for row in record["table"]] == [2, 2, 2]
    assert "6 of 6 fits succeeded." in out
    assert "ppca has no laplace" in out
    page = (tmp_path / "s" / "sweep.html").read_text()
    assert page.count('<tr><th scope="row">') == 3 + 6
    assert "6 of 6 fits succeeded" in page
    assert len((tmp_path / "s" / "sweep.csv").read_text().splitlines()) == 7
    alone = json.loads(call("run", "linear", "--method", "laplace", "--seed", "1", "--json", "-")[1])
    cell = next(cell for cell in record["cells"] if (cell["method"], cell["seed"]) == ("svi:laplace", 1))
    assert (cell["elbo"], cell["k_hat"], cell["data"]) == (alone["elbo"], alone["k_hat"], alone["data"])


def test_a_fit_that_fails_is_listed_and_the_others_go_on(call: Call, tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("a,b\n1,2\n")
    status, out, err = call("sweep", "gmm", "--methods", "em", "--data", f"{bad},iris", *ALONE)
    assert status == 0, err
    assert "1 of 2 fits succeeded." in out
    assert f"gmm on bad.csv by em, seed 0 failed: {bad}: there is one row of data" in " ".join(out.split())
    status, _, err = call("sweep", "gmm", "--methods", "em", "--data", bad, "--workers", "1")
    assert status == 1
    assert "sweep: none of 1 fits succeeded: " in err


def test_a_table_sums_up_seeds() -> None:
    about = {"model": "m", "method": "svi:x", "data": "d", "source": None, "judgement": "good", "converged": True}
    about["log_likelihood"] = None
    fits = [about | {"elbo": -e, "k_hat": k, "seconds": 1.0, "failed": None} for e, k in ((1.0, 0.2), (3.0, 0.9))]
    fits.append(about | dict.fromkeys(("elbo", "k_hat", "seconds", "judgement"), None) | {"failed": "why"})
    (row,) = summary(fits)
    assert (row["fits"], row["failed"], row["elbo"], row["elbo_sd"], row["k_hat"]) == (2, 1, -2.0, 2**0.5, 0.9)
    assert row["judgements"] == {"good": 2}


def end(how: str) -> str:
    """A task that ends its worker: "always", or, the name of a file, once."""
    if how == "always" or (how and not Path(how).exists()):
        if how != "always":
            Path(how).write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


@pytest.mark.slow
def test_tasks_whose_worker_was_killed_are_done_again_or_given_up(tmp_path: Path) -> None:
    found = run_tasks(end, ["", str(tmp_path / "flag"), "", "always", "", ""], workers=2, retries=2)
    assert [done.result for done in found] == ["done", "done", "done", None, "done", "done"]
    assert found[1].lost >= 1  # twice, if the task beside it brought down the pool
    assert found[3].lost == 3


def test_what_was_lost_is_said() -> None:
    cell = {"model": "m", "method": "em", "data": None, "seed": 0, "lost": 2, "failed": "why"}
    assert in_words({"cells": [cell, cell | {"failed": None, "lost": 1, "seed": 1}], "gaps": []}) == [
        "1 of 2 fits succeeded; 2 had to be begun again, since a worker was lost.",
        "m by em, seed 0 failed: why.",
        "m by em, seed 1 was begun again.",
    ]


@pytest.mark.slow
def test_processes_give_the_numbers_of_one() -> None:
    one = sweep(cells(), workers=1)
    assert all(cell["failed"] is None for cell in one["cells"])
    assert numbers(sweep(cells(), workers=2)) == numbers(one)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="dask is not installed")
def test_a_dask_cluster_gives_the_numbers_of_one(tmp_path: Path) -> None:
    from dask.distributed import LocalCluster  # pyright: ignore[reportMissingImports]

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        address = cluster.scheduler_address
        assert numbers(sweep(cells(), cluster=address)) == numbers(sweep(cells(), workers=1))
        found = run_tasks(end, ["", str(tmp_path / "flag"), ""], cluster=address)
        assert [done.result for done in found] == ["done"] * 3
        assert found[1].lost == 1


def counted(task: tuple[Path, int]) -> int:
    """A task that notes each time it is done, and by whom; the last of four waits to be killed."""
    folder, number = task
    with (folder / str(number)).open("a") as file:
        file.write(f"{os.getpid()}\n")
    while number == 3 and not (folder / "killed").exists():
        time.sleep(0.01)
    return number


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="dask is not installed")
def test_what_a_dask_worker_had_done_before_it_was_lost_is_not_done_again(tmp_path: Path) -> None:
    from dask.distributed import LocalCluster  # pyright: ignore[reportMissingImports]

    def kill(count: int) -> None:
        if count == 3:
            time.sleep(1)  # the scheduler is told that three results have been fetched
            os.kill(int((tmp_path / "0").read_text()), signal.SIGKILL)
            (tmp_path / "killed").write_text("")

    tasks = [(tmp_path, number) for number in range(4)]
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        found = run_tasks(counted, tasks, cluster=cluster.scheduler_address, note=kill)
    assert [done.result for done in found] == [0, 1, 2, 3]
    assert [len((tmp_path / str(number)).read_text().split()) for number in range(4)] == [1, 1, 1, 2]
    assert [done.lost for done in found] == [0, 0, 0, 1]


def test_without_dask_a_cluster_is_a_sentence(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "dask.distributed", None)
    status, _, err = call("sweep", "gmm", "--methods", "em", "--cluster", "tcp://127.0.0.1:1")
    assert (status, err.splitlines()[-1]) == (2, "guidebook: --cluster needs dask: pip install 'guidebook[dask]'")
