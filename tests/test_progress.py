"""How long a task will take, said once its pace is known: before a clock that tests turn by hand."""

from collections.abc import Callable

import pytest

from guidebook.inference import progress
from guidebook.inference.progress import Progress, announced, duration
from guidebook.workflow.fit import fit, load_task


@pytest.fixture
def turn(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Turn the clock on by so many seconds."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])

    def turn(seconds: float) -> None:
        now[0] += seconds

    return turn


def _said(turn: Callable[[float], None], seconds_per_step: float, **options: bool) -> list[str]:
    said: list[str] = []
    with announced(said.append), Progress("nuts", 1000, False, **options) as bar:
        turn(20.0)  # of compilation
        for step in range(1, 1001):
            turn(seconds_per_step)
            bar.update(step)
    return said


def test_a_long_task_says_once_how_long_it_takes(turn) -> None:
    assert _said(turn, 0.1, is_fixed=True) == ["nuts: about 90 s to go, by the pace of the first 51 of 1,000 steps"]
    assert _said(turn, 1.0, is_fixed=True) == ["nuts: about 16 min to go, by the pace of the first 21 of 1,000 steps"]


def test_a_short_task_one_without_an_end_and_one_that_nobody_listens_to_say_nothing(turn) -> None:
    assert _said(turn, 0.03, is_fixed=True) == []
    assert _said(turn, 1.0) == []
    with Progress("nuts", 1000, False, is_fixed=True) as bar:
        turn(100.0)
        bar.update(10)


@pytest.mark.parametrize(
    ("seconds", "words"), [(30, "30 s"), (95, "100 s"), (100, "2 min"), (600, "10 min"), (9000, "2.5 h")]
)
def test_times_are_said_in_round_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_chains_of_the_command_say_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for limit in ("LONG", "FIRST_SECONDS", "FIRST_SHARE"):
        monkeypatch.setattr(progress, limit, 0.0)
    fit(load_task("linear"), "gibbs", draws=600, warmup=100, chains=4)
    said = [line for line in capsys.readouterr().err.splitlines() if " to go, by the pace of the first " in line]
    assert len(said) == 1
    assert said[0].startswith("guidebook: gibbs: about ")
