"""``--checkpoint`` and ``guidebook resume``: a command that was stopped goes on, and repeats no fit that has ended."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guidebook.workflow import fit as fitting

Call = Callable[..., tuple[int, str, str]]
COMPARE = ("compare", "gmm", "--methods", "em,gibbs", "--set", "num_components=2", "--draws", "30", "--warmup", "10")
MODEL = """
import pyro, pyro.distributions as dist
def model(x):
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)
"""


@pytest.fixture(autouse=True)
def _own_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path.cwd())  # to which each test returns: resume goes elsewhere


def untimed(text: str) -> Any:
    """What a record says but for its seconds."""
    return json.loads(re.sub(r'"seconds": [\d.e-]+', '"seconds": 0', text))


def test_a_comparison_takes_up_where_it_stopped(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    status, expected, err = call(*COMPARE, "--json", "-")
    assert status == 0, err
    fitted, interrupted = [], [True]
    fit = fitting.fit

    def stopped(task: Any, method: str, *rest: Any, **options: Any) -> Any:
        fitted.append(method)
        if method == "gibbs" and interrupted.pop():
            raise KeyboardInterrupt
        return fit(task, method, *rest, **options)

    monkeypatch.setattr(fitting, "fit", stopped)
    kept = tmp_path / "kept"
    status, _, err = call(*COMPARE, "--json", tmp_path / "a.json", "--checkpoint", kept)
    assert status == 130
    assert fitted == ["em", "gibbs"]
    interrupted[:] = [False]
    monkeypatch.setattr(sys.modules["guidebook.inference.em"], "iterate", None)  # em is not done again
    monkeypatch.chdir(Path("/"))
    status, _, err = call("resume", kept)
    assert status == 0, err
    assert untimed((tmp_path / "a.json").read_text()) == untimed(expected)
    status, _, err = call(*COMPARE, "--seed", "1", "--checkpoint", kept)
    assert status == 2
    assert f"--checkpoint: {kept} belongs to another command, guidebook compare gmm --methods em,gibbs" in err


def test_a_run_and_a_fit_keep_checkpoints(call: Call, tmp_path: Path) -> None:
    run = ("run", "gmm", "--method", "em", "--set", "num_components=2", "--every", "0")
    status, out, err = call(*run, "--json", "-", "--checkpoint", tmp_path / "run")
    assert status == 0, err
    assert call("resume", tmp_path / "run") == (0, out, err)
    status, out, err = call("fit", "linear", "--json", "-", "--checkpoint", tmp_path / "fit")
    assert status == 0, err
    assert any((tmp_path / "fit").glob("*/state-*.safetensors"))
    assert untimed(call("resume", tmp_path / "fit")[1]) == untimed(out)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_model_of_ones_own_is_run_again_only_if_it_is_unchanged(call: Call, tmp_path: Path) -> None:
    file, kept = tmp_path / "mine.py", tmp_path / "kept"
    file.write_text(MODEL)
    (tmp_path / "x.json").write_text('{"x": [0.5, 1.5, 1.0]}')
    words = ("run", f"{file}:model", "--method", "dadvi", "--data", tmp_path / "x.json", "--json", "-")
    status, out, err = call(*words, "--checkpoint", kept)
    assert status == 0, err
    assert call("resume", kept)[:2] == (0, out)
    file.write_text(MODEL.replace("10.0", "20.0"))
    status, _, err = call("resume", kept)
    assert status == 2
    assert f"resume: {file}:model has changed since {kept} was begun" in err
    assert "Traceback" not in err


def test_what_lies_in_a_checkpoint_is_not_run(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("raise SystemExit(99)\ndef model(x): pass\n")
    words = ["run", "gmm", f"--method=svi:{file}:model"]
    record = {"words": words, "folder": str(tmp_path), "options": {}, "files": {}}
    (tmp_path / "command.json").write_text(json.dumps(record))
    status, _, err = call("resume", tmp_path)
    assert status == 2
    assert "what lies in a checkpoint is not run" in err


def _record(*words: Any, folder: str = "/") -> str:
    return json.dumps({"words": words, "folder": folder, "options": {}, "files": {}})


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "holds no command"),
        ("[]", "holds no command"),
        ("[" * 100_000, "holds no command"),
        ('{"words": ["run", "gmm"]}', "holds no command"),
        (_record("list"), "holds no command"),
        (_record("run", 3), "holds no command"),
        (_record("run", "gmm", folder="/nowhere"), "was begun in /nowhere, which is not there"),
        (_record("run", "gmm", "--sed", "1"), "No such option"),
        (_record("run", "gmm", "--seed", "1"), "belongs to another command, guidebook run gmm --seed 1"),
    ],
)
def test_a_folder_without_a_command_is_refused(call: Call, tmp_path: Path, content: str | None, sentence: str) -> None:
    if content is not None:
        (tmp_path / "command.json").write_text(content)
    status, out, err = call("resume", tmp_path)
    assert (status, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1
