"""How commands end: by signals, with their workers, and one at a time per folder and per process."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch

from guidebook.commands.interrupts import interruptible
from guidebook.guides import mean_field
from guidebook.inference import nuts, svi
from guidebook.inference.checkpoints import NOT_KEPT
from guidebook.inference.engines.signals import signals_held
from guidebook.inference.mcmc import workers
from guidebook.inference.mcmc.chains import ChainOptions, prepare_chains, run_chains
from guidebook.workflow.drafts import LOCK, PREFIX, claim, release_all

sys.path.append(str(Path(__file__).parents[1]))  # the checks of reliability are no part of the package

from reliability.orphans import ended, faults_of

forks = pytest.mark.filterwarnings("ignore:.*fork:RuntimeWarning", "ignore:.*fork:DeprecationWarning")
CHAINS = "run logistic --method hmc --draws 50000 --out OUT"


@pytest.fixture(autouse=True)
def _released():
    yield
    release_all()


@pytest.fixture(autouse=True)
def _signals_heard():
    """A shell has what it runs in the background ignore some signals, and children would inherit that."""
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


# Signals


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_workers_and_files_end_with_their_command(tmp_path: Path, number: int) -> None:
    left = ended(CHAINS.split(), number, 2.0, tmp_path, group=number == signal.SIGINT, until="popen_loky")
    assert not faults_of(left, number)


def signalled(number: int, seconds: float = 5.0) -> None:
    os.kill(os.getpid(), number)
    time.sleep(seconds)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_interrupts_and_later_ones_wait(number: int) -> None:
    with interruptible(lambda: None) as interrupts:
        with pytest.raises(KeyboardInterrupt):
            signalled(number)
        signalled(signal.SIGTERM, 0.01)  # while cleaning up
        assert interrupts.status == 128 + number
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class Swallowing:
    """Has the signal come where no exception can be raised, as in a callback of the garbage collector."""

    def __del__(self) -> None:
        signalled(signal.SIGTERM)


def test_an_interrupt_that_a_callback_swallows_is_raised_again(capsys: pytest.CaptureFixture[str]) -> None:
    with interruptible(lambda: None) as interrupts:
        swallowing = [Swallowing()]
        with pytest.raises(KeyboardInterrupt):
            wait(swallowing)
    assert interrupts.status == 143
    assert capsys.readouterr().err == ""


def wait(swallowing: list) -> None:
    swallowing.clear()
    time.sleep(5)
    raise AssertionError("nothing has been raised")


THROUGH_C = """
import ctypes
from guidebook import cli

def app(**_):
    run = ctypes.pythonapi.PyRun_String
    run.restype, run.argtypes = ctypes.py_object, [ctypes.c_char_p, ctypes.c_int, ctypes.py_object, ctypes.py_object]
    run(b"import os; os.kill(os.getpid(), 15); [None for _ in range(10**6)]", 257, {"__builtins__": __builtins__}, {})

cli.app = app
cli.main()
"""


def test_an_interrupt_that_passes_through_c_code_has_its_status(tmp_path: Path) -> None:
    """After a plain KeyboardInterrupt that passes there, Python ends itself by SIGINT, though it is caught."""
    (tmp_path / "through_c.py").write_text(THROUGH_C)
    paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    command = [sys.executable, "-m", "through_c"]
    ran = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (143, "guidebook: interrupted\n")


def test_signals_are_held_until_a_block_has_ended() -> None:
    ended: list[bool] = []

    def hold() -> None:
        with signals_held():
            signalled(signal.SIGTERM, 0.01)
            signalled(signal.SIGINT, 0.01)
            ended.append(True)

    with interruptible(lambda: None) as interrupts:
        with pytest.raises(KeyboardInterrupt):
            hold()
        assert (ended, interrupts.signal) == ([True], signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == interrupts.handle


IN_JAXLIB = """
import enum, os, sys
from guidebook import cli

make, sent = enum.EnumType.__call__, []

def interrupting(*given, **named):
    if "jaxlib.mlir._mlir_libs" in sys.modules and not sent:
        sent.append(os.kill(os.getpid(), 15))
    return make(*given, **named)

enum.EnumType.__call__ = interrupting
sys.argv = ["guidebook", *"run linear --method nuts --chains 1 --draws 600 --warmup 600 --out".split(), sys.argv[1]]
cli.main()
"""


@pytest.mark.slow
def test_a_signal_in_the_midst_of_an_import_of_jax_waits_for_its_end(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", IN_JAXLIB, str(tmp_path / "out")], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (143, "guidebook: interrupted\n")
    assert not [*tmp_path.iterdir()]


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with interruptible(lambda: None) as interrupts:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.05)
            assert interrupts.signal is None
    finally:
        signal.signal(signal.SIGHUP, before)


@forks
def test_a_command_that_does_not_return_to_python_ends_all_the_same() -> None:
    """In a process that ignores the exception, as native code would."""
    process = os.fork()
    if not process:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        import guidebook.commands.interrupts as module

        module.GRACE = 0.2
        reading, writing = os.pipe()
        with interruptible(lambda: os.close(writing)):
            while True:
                try:
                    os.kill(os.getpid(), signal.SIGTERM)
                    os.read(reading, 1)
                except KeyboardInterrupt:
                    continue
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGTERM


def test_an_interrupted_command_says_so(call: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    from guidebook.catalog import METHODS

    def interrupted(*_, **__):
        signalled(signal.SIGTERM)

    monkeypatch.setitem(METHODS, "em", METHODS["em"]._replace(function=interrupted))
    assert call("run", "gmm", "--method", "em") == (143, "", "guidebook: interrupted\n")


def test_an_import_that_was_cut_short_counts_as_interrupted(call: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    from guidebook.catalog import METHODS

    def swallowed(*_, **__):
        try:
            signalled(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("numpy.core.multiarray failed to import") from None

    monkeypatch.setitem(METHODS, "em", METHODS["em"]._replace(function=swallowed))
    assert call("run", "gmm", "--method", "em") == (130, "", "guidebook: interrupted\n")


# Workers


@forks
def test_scratch_of_a_killed_process_is_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(workers.tempfile, "tempdir", str(tmp_path))
    dead = os.fork()
    if not dead:
        os._exit(0)
    os.waitpid(dead, 0)
    stale, mine = (tmp_path / f"{workers._prefix(process)}-abc" for process in (dead, os.getpid()))
    foreign = tmp_path / f"guidebook-another.host-{dead}-abc"
    for folder in (stale, mine, foreign):
        folder.mkdir()
    with workers.scratch() as folder:
        assert {*tmp_path.iterdir()} == {mine, foreign, folder}
    assert {*tmp_path.iterdir()} == {mine, foreign}


def killed(*_) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)
    options = ChainOptions(num_draws=5, num_warmup=5, num_chains=2, seed=0, device=None, progress=False)
    prepared = prepare_chains("hmc", model, (X,), options, None)
    with pytest.raises(ChildProcessError, match=r"hmc: a worker process was killed"):
        run_chains("hmc", killed, prepared, options, NOT_KEPT, None)


# One run per folder


@forks
def test_a_folder_has_one_run_at_a_time(call: Callable, tmp_path: Path) -> None:
    out = tmp_path / "out"
    claim(out)
    process = os.fork()
    if not process:
        os._exit(0 if _refused(out) else 1)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    release_all()
    assert [*tmp_path.iterdir()] == []
    assert call("run", "gmm", "--method", "em", "--out", out)[0] == 0


def _refused(out: Path) -> bool:
    from guidebook.workflow import drafts

    drafts._held.clear()
    try:
        drafts.claim(out)
    except ValueError as error:
        return "another run is writing to" in str(error)
    return False


def test_drafts_of_killed_runs_are_cleared_and_those_of_others_left(tmp_path: Path) -> None:
    stale, live = (tmp_path / f"{PREFIX}{name}" for name in ("stale", "live"))
    for folder in (stale, live):
        (folder / "files").mkdir(parents=True)
        (folder / LOCK).touch()
    lock = os.open(live / LOCK, os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    claim(tmp_path / "out")
    assert not stale.exists()
    assert (live / "files").exists()
    os.close(lock)


NO_LOCKS = """
import sys
sys.modules["fcntl"] = None  # as on Windows
from guidebook.workflow.drafts import claim, release_all
from guidebook.workflow.files import drafted
from pathlib import Path

out = Path(sys.argv[1]) / "out"
claim(out)
with drafted(out) as draft:
    (draft / "a").write_text("1")
release_all()
"""


def test_where_there_are_no_locks_folders_are_written_all_the_same(tmp_path: Path) -> None:
    """And the drafts of other runs, of which nobody knows whether they live, are left alone."""
    other = tmp_path / f"{PREFIX}other"
    other.mkdir()
    (other / LOCK).touch()
    ran = subprocess.run([sys.executable, "-c", NO_LOCKS, tmp_path], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert (tmp_path / "out" / "a").read_text() == "1"
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "out"]


# Threads


def model(x: torch.Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(0.0, 3.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(loc, 1.0), obs=x)


X = torch.tensor([0.3, 1.1, 0.4, 2.0])


def fits() -> list[Callable]:
    """Two fits of different methods, of which one computes in float64."""
    return [
        lambda: svi(model, mean_field, X, num_steps=150, progress=False).draws["loc"],
        lambda: nuts(
            model, X.double(), num_draws=100, num_warmup=100, num_chains=1, engine="pyro", progress=False
        ).draws["loc"],
    ]


@pytest.mark.filterwarnings("ignore:(nuts|svi)")  # of short runs
def test_threads_that_fit_at_once_get_the_same_numbers_as_one_after_the_other() -> None:
    alone = [fit() for fit in fits()]
    found: dict[int, torch.Tensor] = {}
    ready = threading.Barrier(4)

    def run(place: int) -> None:
        ready.wait()
        found[place] = fits()[place % 2]()

    threads = [threading.Thread(target=run, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(torch.equal(found[place], alone[place % 2]) for place in found)
