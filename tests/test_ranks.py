"""Two ranks train as one with the doubled batch; a rank that is killed is noticed, and the fit goes on bit for bit."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from zoo import ranks

from guidebook.inference.distributed.ranks import Ranks
from guidebook.workflow.ranks import process_group

HERE = Path(__file__).parent
JOBS = ("point", "whole", "latent", "kept", "resumed", "again", "apart", "ended", "data", "seed", "options")
JOBS += ("loss", "optim", "place", "failed")


def started(folder: Path, *jobs: str) -> list[tuple[int, str]]:
    """Run jobs in two ranks; return the exit status of each, and what it said last."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "zoo.ranks", str(folder), str(rank), *jobs],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=240)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, words) for process, words in zip(processes, said, strict=True)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    (lost, said), (ended, _) = started(folder, "killed")
    assert ended == -signal.SIGKILL
    assert lost == 1
    assert "ConnectionError: svi: rank 0 of 2 lost the others: one of them has ended" in said
    assert "third_party" not in said.splitlines()[-1]
    for status, said in started(folder, *JOBS):
        assert status == 0, said
    return folder


def found(folder: Path, job: str) -> list[Any]:
    return [torch.load(folder / f"{job}-{rank}.pt") for rank in range(2)]


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.filterwarnings("ignore:svi. took all")
def test_two_ranks_are_one_with_the_doubled_batch(folder: Path) -> None:
    """The same rows, so the same gradients up to rounding: of global latents and of local ones, whose noise is data."""
    for job, fit, batch in (("point", ranks.point, 5), ("latent", ranks.latent, 5), ("whole", ranks.point, None)):
        first, second = found(folder, job)
        assert largest_difference(first, second) == 0
        assert largest_difference(first, dict(fit(batch and 2 * batch).params)) < 1e-11
        if batch:
            assert largest_difference(first, dict(fit(batch).params)) > 1e-4


def test_ranks_have_rows_and_noise_of_their_own(folder: Path) -> None:
    (first, noise, draws), (second, others_noise, others) = found(folder, "apart")
    assert len(torch.cat([*first, *second]).unique(dim=0)) == ranks.ROWS
    assert all((w != v).all() for w, v in zip(noise, others_noise, strict=True))
    assert torch.equal(draws, others)


def test_a_fit_whose_rank_was_killed_goes_on_bit_for_bit(folder: Path) -> None:
    for expected, resumed, again in zip(*(found(folder, job) for job in ("kept", "resumed", "again")), strict=True):
        assert len(resumed.pop("losses")) == 120
        assert largest_difference(expected, resumed) == 0
        assert largest_difference(expected, again) == 0
    assert sorted(path.name for path in (folder / "checkpoint").iterdir())[0] == "lock"


def test_all_ranks_end_by_the_first_ones_callback(folder: Path) -> None:
    first, second = found(folder, "ended")
    assert first == second < 400


def test_ranks_that_were_not_given_the_same_are_told(folder: Path) -> None:
    assert len({*found(folder, "data")}) == 1
    assert found(folder, "data")[0].startswith("svi: data differ between the 2 ranks: every rank makes the same call")
    for job, what in (("seed", "seed"), ("loss", "loss, num_particles"), ("optim", "optim"), ("place", "checkpoint")):
        assert all(said.startswith(f"svi: {what} differ between the 2 ranks") for said in found(folder, job))
    assert not (folder / "of one").exists()


def test_what_fails_on_the_first_rank_is_said_by_all(folder: Path) -> None:
    first, second = found(folder, "failed")
    assert first == ["KeyError: 'w'", "OSError: no space", "3"]
    assert second == ["RuntimeError: svi: rank 0 failed: KeyError: 'w'", "OSError: no space", "3"]


def test_options_that_do_not_go_with_ranks_are_refused(folder: Path) -> None:
    large, compiled = found(folder, "options")[0]
    assert large == "svi: 2 ranks with batch_size=40 take 80 rows per step, and there are 40"
    assert compiled == "svi: 2 ranks take their steps one by one: remove engine='compiled'"


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (
            "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:10880. This may"
            " indicate a remote failure.",
            "Connection closed by peer [127.0.0.1]:10880",
        ),
        (  # https://github.com/NVIDIA/nccl/issues/2076
            "NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.hpp:268, remote process exited or there was "
            "a network error, NCCL version 2.21.5\nncclRemoteError: A call failed possibly due to a network error or a "
            "remote process exiting prematurely.\nLast error:\n",
            "NCCL error, remote process exited or there was a network error, NCCL version 2.21.5",
        ),
        ("shapes differ", None),
    ],
)
def test_an_error_of_the_library_says_that_a_rank_was_lost(
    said: str, kept: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(values: Tensor) -> None:
        raise RuntimeError(said)

    monkeypatch.setattr(torch.distributed, "all_reduce", fail)
    with pytest.raises(RuntimeError if kept is None else ConnectionError) as error:
        Ranks("svi", 1, 2).add(torch.zeros(1))
    if kept is None:
        assert str(error.value) == said
    else:
        assert str(error.value).startswith("svi: rank 1 of 2 lost the others")
        assert str(error.value).endswith(f"({kept})")


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(("device", "backend"), [(None, "gloo"), ("cuda", "nccl")])
def test_a_rank_leaves_its_group_unless_it_would_wait_for_the_others(
    device: str | None, backend: str, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    for name, value in {"RANK": 0, "LOCAL_RANK": 1, "WORLD_SIZE": 2, "MASTER_ADDR": "a", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("TORCH_NCCL_BLOCKING_WAIT", "")  # so that it is put back
    monkeypatch.delenv("TORCH_NCCL_BLOCKING_WAIT")

    def begin(backend: str) -> None:
        calls.append((backend, os.environ.get("TORCH_NCCL_BLOCKING_WAIT")))

    monkeypatch.setattr(torch.cuda, "set_device", calls.append)
    monkeypatch.setattr(torch.distributed, "init_process_group", begin)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: calls.append("left"))
    try:
        with process_group(device):
            if fails:
                raise OSError("no space")
    except OSError:
        assert fails
    begun = [("gloo", None)] if backend == "gloo" else [1, ("nccl", "1")]
    assert calls == begun + (["left"] if not fails or backend == "gloo" else [])


@pytest.mark.slow
def test_torchrun_trains_and_one_rank_writes(tmp_path: Path) -> None:
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "guidebook"]
    run = ["run", "vae", "--set", "latent_dim=2", "--set", "batch_size=16", "--steps", "20", "--draws", "5"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, *command, *run, "--json", str(tmp_path / "a.json"), "--out", str(tmp_path / "out")]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "a.json").read_text())["engine"] == "eager"
    assert done.stdout.count("report:") == 1
    words = [sys.executable, *command, "run", "gmm", "--method", "em"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode
    assert "guidebook: em runs in one process: torchrun is for `guidebook run --method svi`" in done.stderr
