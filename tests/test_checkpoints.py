"""Fits that were stopped go on to the same numbers; what is damaged, of another fit or in use is said in a sentence."""

import errno
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from zoo import linear
from zoo.topics import TINY

from guidebook import guides
from guidebook.inference import Posterior, dadvi, em, fit, gibbs, hmc, kl_warm_up, mcem, nuts, svi
from guidebook.inference.checkpoints import Checkpoint
from guidebook.inference.checkpoints.files import read_state, write_state
from guidebook.inference.checkpoints.fingerprint import fingerprint
from guidebook.inference.checkpoints.trees import put_together, take_apart
from guidebook.inference.mcmc.kernels import KERNELS
from guidebook.inference.optim.stopping import AutoPlan
from guidebook.inference.traces.moments import Moments
from guidebook.models import gmm, lda, ppca
from reliability.fits import QUICK
from reliability.kills import differences

X, Y = linear.data(40)
QUIET: dict[str, Any] = {"progress": False}
SLOPE, OFFSET = 2.0, 1.0


class Stopped(BaseException):
    """What a kill looks like from inside."""


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Stop fits after their states of these numbers, and run chains one after another, where that reaches them."""
    import joblib

    def at(*numbers: int) -> None:
        offered, offer = 0, Checkpoint.offer

        def stop(self: Checkpoint, loop: str, state: Callable[[], Any]) -> None:
            nonlocal offered
            offer(self, loop, state)
            offered += self.folder is not None
            if self.folder is not None and offered in numbers:
                raise Stopped

        monkeypatch.setattr(Checkpoint, "offer", stop)

    with joblib.parallel_config("sequential"):
        yield at


def resumed(method: Callable[..., Posterior], folder: Path) -> tuple[Posterior, int]:
    """Call a method until it ends; return its result and how often it was stopped."""
    for stops in range(20):
        try:
            return method(checkpoint=folder, every=0.0), stops
        except Stopped:
            pass
    raise AssertionError("it never ends")


def short(method: Callable[..., Posterior], *args: Any, **options: Any) -> Callable[..., Posterior]:
    return partial(method, *args, **options)


STOPPED: dict[str, tuple[Callable[..., Posterior], tuple[int, ...]]] = {
    "svi": (short(svi, linear.model, guides.mean_field, X, Y, num_steps=120, **QUIET), (2, 5, 9)),
    "svi, batches": (short(svi, linear.model, guides.mean_field, X, Y, num_steps=120, batch_size=7, **QUIET), (2, 9)),
    "svi, torch's optimiser": (
        short(svi, linear.model, guides.mean_field, X, Y, num_steps=120, optim=torch.optim.Adagrad, **QUIET),
        (2, 5),
    ),
    "gibbs": (short(gibbs, gmm.gibbs_steps(num_components=2), X, num_draws=30, num_warmup=10, **QUIET), (3, 12, 25)),
    "gibbs, tokens in turn": (
        short(gibbs, lda.gibbs_steps(2), TINY, num_draws=30, num_warmup=10, thin=2, **QUIET),
        (3, 12, 45),
    ),
    "em": (short(em, gmm.em_steps(num_components=2), X, num_restarts=3), (2, 7)),
    "em, accelerated": (short(em, gmm.em_steps(num_components=2), X, num_restarts=3, accelerate=True), (2, 7)),
    "hmc": (short(hmc, linear.model, X, Y, num_draws=20, num_warmup=60, num_chains=2, **QUIET), (5, 70, 90)),
    "nuts": (
        short(nuts, linear.model, X, Y, num_draws=20, num_warmup=60, num_chains=2, engine="pyro", **QUIET),
        (5, 50, 70, 90),
    ),
}


@pytest.mark.parametrize("name", STOPPED)
@pytest.mark.filterwarnings("ignore::UserWarning")  # what so few draws say of themselves
def test_a_fit_that_was_stopped_ends_as_if_it_had_not_been(name: str, stopping: Any, tmp_path: Path) -> None:
    method, numbers = STOPPED[name]
    expected = method()
    stopping(*numbers)
    found, stops = resumed(method, tmp_path / "kept")
    assert stops == len(numbers)
    assert differences(expected, found) == []
    again, _ = resumed(method, tmp_path / "kept")
    assert differences(expected, again) == []
    assert again.info.seconds == found.info.seconds


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_compiled_steps_go_on(stopping: Any, tmp_path: Path) -> None:
    method = short(svi, linear.model, guides.mean_field, X, Y, num_steps=400, engine="compiled", **QUIET)
    expected = method()
    stopping(2)
    assert differences(expected, resumed(method, tmp_path)[0]) == []
    with pytest.raises(ValueError, match=r"svi: .* holds a checkpoint of another fit, with other engine"):
        method(checkpoint=tmp_path, engine="eager")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_compiled_chains_go_on_with_the_metric_that_was_chosen(stopping: Any, tmp_path: Path) -> None:
    options = {"num_draws": 100, "num_warmup": 300, "num_chains": 2, "engine": "xla"}
    method = short(nuts, linear.model, X, Y, **options, **QUIET)
    expected = method()
    stopping(11)  # of 16 blocks in all: both chains are past the choice of the metric, within warm-up
    found, stops = resumed(method, tmp_path)
    assert stops == 1
    assert differences(expected, found) == []


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_chain_within_mcem_goes_on(kernel: str, stopping: Any, tmp_path: Path) -> None:
    method = short(mcem, ppca.latent_model, X, num_steps=30, num_draws=3, kernel=kernel, **QUIET)
    expected = method()
    stopping(1, 2)  # after ten steps, and twenty
    assert differences(expected, resumed(method, tmp_path)[0]) == []


def test_a_loss_that_changes_from_step_to_step_goes_on(stopping: Any, tmp_path: Path) -> None:
    def method(**kept: Any) -> Posterior:
        loss = kl_warm_up(40)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return svi(linear.model, guides.mean_field, X, Y, num_steps=60, loss=loss, **kept, **QUIET)

    expected = method()
    stopping(2)
    assert differences(expected, resumed(method, tmp_path)[0]) == []


def test_an_automatic_plan_goes_on() -> None:
    """The plan of the whole fit is the same if its state is written and read after any block."""

    def blocks(broken: bool) -> list[Tensor]:
        def measure(position: Tensor) -> Moments:
            return Moments(position, torch.ones_like(position), torch.ones_like(position))

        generator = torch.Generator().manual_seed(0)
        plan, found, number = AutoPlan(0.01, measure, ceiling=9_000), [], 0
        while (block := plan.next(200)) is not None:
            found.append(block.rates)
            at = 5 * torch.exp(torch.tensor(-plan.done / 900.0)) + 0.1 * torch.randn(2, generator=generator)
            plan.note(at.double(), at.sum().expand(len(block.rates)))
            number += 1
            if broken and number % 7 == 0:
                tensors, text = take_apart(plan.state())
                plan = AutoPlan(0.01, measure, ceiling=9_000)
                plan.restore(put_together(tensors, text))
        return found

    whole, parts = blocks(False), blocks(True)
    assert torch.equal(torch.cat(whole), torch.cat(parts))
    assert len(torch.cat(whole).unique()) > 2  # it came to the steps that decay


def test_restarts_and_fits_that_have_ended_are_not_done_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = sys.modules["guidebook.inference.optim.many_starts"]
    searches, find_modes = [], module.find_modes

    def counted(batched: Any, starts: Tensor) -> Any:
        searches.append(len(starts))
        return find_modes(batched, starts)

    def restarts(**options: Any) -> Posterior:
        return dadvi(linear.model, X, Y, num_restarts=3, **options, **QUIET)

    monkeypatch.setattr(module, "MAX_CHUNK", 2)
    monkeypatch.setattr(module, "find_modes", counted)
    expected = restarts()
    assert searches == [2, 1]
    for function in ("fit_normals", "rounds_from"):
        with monkeypatch.context() as patched:
            patched.setattr(module, function, _stop)
            with pytest.raises(Stopped):
                restarts(checkpoint=tmp_path)
        assert searches == [2, 1, 2, 1]
    assert differences(expected, restarts(checkpoint=tmp_path)) == []
    monkeypatch.setattr(module, "rounds_from", None)
    assert differences(expected, restarts(checkpoint=tmp_path)) == []
    assert searches == [2, 1, 2, 1]


def test_fit_does_not_repeat_a_method_that_has_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    expected = fit(linear.model, X, Y, **QUIET)
    module = sys.modules["guidebook.inference.fit"]
    with monkeypatch.context() as patched:
        patched.setattr(module, "check", _stop)
        with pytest.raises(Stopped):
            fit(linear.model, X, Y, checkpoint=tmp_path, **QUIET)
    monkeypatch.setattr(sys.modules["guidebook.inference.optim.many_starts"], "fit_rounds", None)
    assert differences(expected, fit(linear.model, X, Y, checkpoint=tmp_path, **QUIET)) == []


def _stop(*_: Any, **__: Any) -> None:
    raise Stopped


TREE = {
    "numbers": [1, -2.5, float("inf"), True, None, "words"],
    ("a", "b"): torch.arange(6.0).reshape(2, 3).T,
    3: (torch.zeros(2, 0), torch.tensor(7), torch.tensor([True, False])),
    "rows": torch.ones(2, 1).expand(2, 5),
    "array": np.arange(4, dtype=np.uint32),
    "none": {},
}


def test_a_state_comes_back_as_it_was_laid_out() -> None:
    found = put_together(*take_apart(TREE))
    assert found["numbers"] == TREE["numbers"]
    assert found["none"] == {}
    assert np.array_equal(found["array"], TREE["array"])
    assert found["array"].dtype == np.uint32
    for name in (("a", "b"), "rows"):
        assert torch.equal(found[name], TREE[name])
        assert found[name].stride() == TREE[name].stride()
    for one, other in zip(found[3], TREE[3], strict=True):
        assert torch.equal(one, other)
        assert one.dtype == other.dtype
    with pytest.raises(TypeError, match="cannot hold a function"):
        take_apart([1, lambda: 0])


def test_a_number_that_is_not_one_comes_back() -> None:
    value = put_together(*take_apart(float("nan")))
    assert value != value


def _truncated(content: bytes) -> Iterator[bytes]:
    yield from (content[:length] for length in (0, 1, 7, 8, 20, len(content) // 2, len(content) - 1))


def _flipped(content: bytes) -> Iterator[bytes]:
    for place in range(0, len(content), 13):
        yield content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]


def _foreign(content: bytes) -> Iterator[bytes]:
    from safetensors.torch import save

    yield b"not one of ours"
    yield save({"x": torch.ones(3)})
    yield save({"x": torch.ones(3)}, {"state": "[" * 100_000, "digest": "0"})


@pytest.mark.parametrize("damaged", [_truncated, _flipped, _foreign])
def test_the_state_before_is_taken_where_the_last_is_damaged(damaged: Any, tmp_path: Path) -> None:
    write_state(tmp_path, {"step": 1, "at": torch.ones(3)})
    write_state(tmp_path, {"step": 2, "at": torch.ones(3)})
    last = tmp_path / "state-000000002.safetensors"
    content = last.read_bytes()
    for wrong in damaged(content):
        last.write_bytes(wrong)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = read_state("svi", tmp_path)
        assert found["step"] in (1, 2)
        if found["step"] == 1:
            assert [str(each.message) for each in said] == [
                f"svi: {last} is damaged, or no checkpoint: going on from state-000000001.safetensors"
            ]
        else:  # a bit without meaning, as in the blanks of the header
            assert torch.equal(found["at"], torch.ones(3))
            assert damaged is _flipped
    (tmp_path / "state-000000001.safetensors").write_bytes(b"")
    last.write_bytes(b"")
    with pytest.warns(UserWarning, match="is damaged, or no checkpoint: ") as both:
        assert read_state("svi", tmp_path) is None
    assert [str(each.message).endswith("beginning anew") for each in both] == [False, True]


def test_the_last_two_states_are_kept(tmp_path: Path) -> None:
    for step in range(12):
        write_state(tmp_path, step)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "state-000000011.safetensors",
        "state-000000012.safetensors",
    ]
    assert read_state("svi", tmp_path) == 11


def test_a_full_disk_ends_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    steps, sync, written = gmm.gibbs_steps(num_components=1), os.fsync, []

    def full(file: int) -> None:
        written.append(file)
        if len(written) > 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(file)

    options = {"num_draws": 30, "num_warmup": 10, **QUIET}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = gibbs(steps, X, **options)
        monkeypatch.setattr(os, "fsync", full)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = gibbs(steps, X, **options, checkpoint=tmp_path, every=0.0)
    sentence = f"gibbs: no state could be written to {tmp_path}: No space left on device; the last one stands"
    assert [str(each.message) for each in said].count(sentence) == 2  # when it happened, and at the end
    assert differences(expected, found) == []
    assert not list(tmp_path.glob(".*"))
    assert read_state("gibbs", tmp_path)["loop"]["sweep"] == 2


def test_a_checkpoint_of_another_fit_is_refused(stopping: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    steps = gmm.em_steps(num_components=2)
    stopping(2)
    with pytest.raises(Stopped):
        em(steps, X, checkpoint=tmp_path, every=0.0)
    for name, args, options in (
        ("tol", (steps, X), {"tol": 1e-3}),
        ("data", (steps, X + 1), {}),
        ("steps", (gmm.em_steps(num_components=3), X), {}),
        ("tol, seed", (steps, X), {"seed": 1, "tol": 1e-3}),
    ):
        with pytest.raises(ValueError, match=rf"em: .* holds a checkpoint of another fit, with other {name}: resume"):
            em(*args, checkpoint=tmp_path, **options)
    with pytest.raises(ValueError, match=r"svi: .* with other method"):
        svi(linear.model, guides.mean_field, X, Y, checkpoint=tmp_path, **QUIET)
    with pytest.raises(ValueError, match=r"another fit, with other method \(em\)"):
        gibbs(gmm.gibbs_steps(num_components=2), X, checkpoint=tmp_path, **QUIET)
    monkeypatch.setattr(sys.modules["guidebook.inference.checkpoints.opening"], "versions", lambda: {"torch": "0.4"})
    with pytest.raises(ValueError, match=r"with other torch \([\d.+a-z]+, now 0.4\)"):
        em(steps, X, checkpoint=tmp_path)


def test_two_fits_do_not_share_a_checkpoint(tmp_path: Path) -> None:
    import fcntl

    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match=f"em: another process keeps its checkpoint in {tmp_path}"):
            em(gmm.em_steps(num_components=2), X, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="em: every must be a number of seconds, got -1"):
        em(gmm.em_steps(num_components=2), X, checkpoint=tmp_path, every=-1)


def _line(x: Tensor, slope: float = SLOPE) -> Tensor:
    return OFFSET + slope * x


def test_fingerprints_tell_code_data_and_bindings_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def bound(value: float) -> Callable[..., float]:
        return lambda: value

    network = torch.nn.Linear(2, 1)
    different = [
        1,
        1.0,
        "1",
        torch.ones(2),
        torch.ones(2).double(),
        torch.ones(1, 2),
        np.ones(2),
        [1],
        (1,),
        _line,
        partial(_line, slope=2.0),
        bound(1.0),
        bound(2.0),
        network,
        guides.mean_field,
        guides.full_rank,
        torch.optim.Adam,
    ]
    found = [fingerprint(value) for value in different]
    assert len({*found}) == len(different)
    assert found == [fingerprint(value) for value in different]
    with torch.no_grad():
        network.bias.add_(1)
    assert fingerprint(network) not in found
    monkeypatch.setattr(sys.modules[__name__], "OFFSET", 2.0)
    assert fingerprint(_line) not in found


def test_a_fingerprint_is_the_same_in_every_process() -> None:
    words = "fingerprint([torch.ones(3), guides.mean_field, {'a', 'b', 'c'}, torch.optim.Adam, kl_warm_up(3)])"
    code = "import torch; from guidebook import guides; from guidebook.inference import kl_warm_up\n"
    code += f"from guidebook.inference.checkpoints.fingerprint import fingerprint\nprint({words})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == eval(words)


@pytest.mark.slow
def test_fits_killed_at_random_moments_end_as_if_they_had_not_been() -> None:
    words = [sys.executable, "-m", "reliability.kills", "--kills", "3", "--only", *QUICK]
    ran = subprocess.run(words, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr + ran.stdout
    assert ran.stdout.count("0 differences") == len(QUICK)


def test_a_callback_that_comes_or_goes_is_another_fit(tmp_path: Path) -> None:
    method = short(svi, linear.model, guides.mean_field, X, Y, num_steps=20, checkpoint=tmp_path, **QUIET)
    heard: list[int] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        method(callback=lambda step, *_: heard.append(step))
    assert heard[-1] == 20
    method(callback=lambda *_: None)
    with pytest.raises(ValueError, match="with other callback"):
        method()
