"""What becomes of a fit when something goes wrong: the page says it, and some of it happens here."""

import subprocess
import sys
from pathlib import Path

import pytest

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
