"""What becomes of a fit when something goes wrong: the page says it, and some of it happens here."""

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))  # the checks of reliability are no part of the package

from reliability.record import HEAD, record

ROOT = Path(__file__).parents[1]


def held_against_the_page(*words: str) -> None:
    command = [sys.executable, "-m", "reliability.faults", "--check", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


@pytest.mark.slow
def test_every_fault_ends_as_the_page_says() -> None:
    held_against_the_page()


def test_faults_of_a_quick_method_end_as_the_page_says() -> None:
    held_against_the_page("--only", "em")


def test_the_last_kills_of_each_method_are_in_the_table(tmp_path: Path) -> None:
    page = tmp_path / "reliability.md"
    page.write_text(f"Before.\n\n{HEAD}\n\nAfter.\n")
    for name, kills, differing in (("em", 5, ["info.losses"]), ("svi", 50, []), ("em", 50, [])):
        record(name, kills, 2, differing, docs=tmp_path)
    rows = "|---|---|---|---|\n| em | 50 | 2 | none |\n| svi | 50 | 2 | none |"
    assert page.read_text() == f"Before.\n\n{HEAD}\n{rows}\n\nAfter.\n"
