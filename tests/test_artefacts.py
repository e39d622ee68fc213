"""Compiled code that is kept on disk: what is damaged is made anew, instead of ending the process."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from guidebook.inference.engines.compiled.artefacts import with_whole_files
from guidebook.inference.engines.compiled.inductor import whole_headers


class Maker:
    """Makes a file unless it is there, as torch's cache does, and loads it once it has been checked."""

    def __init__(self, file: Path) -> None:
        self.file, self.made = file, 0

    def __call__(self, check: Callable[[str], None]) -> str:
        if not self.file.exists():
            self.made += 1
            self.file.write_text("whole")
        check(str(self.file))
        return self.file.read_text()


def used(file: Path) -> tuple[str, int]:
    """What is loaded, and how often it was made for that."""
    maker = Maker(file)
    return with_whole_files(maker), maker.made


def truncate(file: Path) -> None:
    os.truncate(file, 2)


def flip(file: Path) -> None:
    file.write_text("while")


def flip_checksum(file: Path) -> None:
    file.with_name(f"{file.name}.sha256").write_bytes(b"\xff\x00")


@pytest.mark.parametrize("damage", [truncate, flip, flip_checksum])
def test_a_damaged_file_is_made_anew_once(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    file = tmp_path / "a.so"
    assert [used(file), used(file)] == [("whole", 1), ("whole", 0)]
    damage(file)
    assert [used(file), used(file)] == [("whole", 1), ("whole", 0)]
    assert {path.name for path in tmp_path.iterdir()} == {"a.so", "a.so.sha256"}


def test_a_file_of_which_nobody_knows_what_it_was_is_made_anew(tmp_path: Path) -> None:
    file = tmp_path / "a.so"
    file.write_text("half")  # of a compiler that was killed
    os.utime(file, (time.time() - 60,) * 2)
    assert [used(file), used(file)] == [("whole", 1), ("whole", 0)]


def test_other_errors_are_raised_at_once(tmp_path: Path) -> None:
    calls = []

    def fails(_: Callable) -> None:
        calls.append(1)
        raise RuntimeError("no compiler")

    with pytest.raises(RuntimeError, match="no compiler"):
        with_whole_files(fails)
    assert len(calls) == 1


def test_a_precompiled_header_that_was_cut_short_is_made_anew(tmp_path: Path) -> None:
    """Inductor would take it as it is, in every run, and g++ refuse it."""
    made = []

    @cache  # as Inductor does, within a process
    def precompiled(header: str) -> str:
        compiled = tmp_path / f"{header}.h.gch"
        if not compiled.exists():
            made.append(header)
            compiled.write_text("whole")
        return str(tmp_path / f"{header}.h")

    def used() -> str:
        path = with_whole_files(lambda check: whole_headers(precompiled, check)("prefix"))
        return Path(f"{path}.gch").read_text()

    assert [used(), used(), made] == ["whole", "whole", ["prefix"]]
    truncate(tmp_path / "prefix.h.gch")
    assert [used(), used(), made] == ["whole", "whole", ["prefix", "prefix"]]


LOAD = """
from guidebook.inference.engines.compiled import inductor
with inductor.trust_cpuid():
    print(inductor.load_cpp('extern "C" int answer() { return 42; }').answer())
"""


@pytest.mark.slow
def test_a_library_that_was_cut_short_is_compiled_again(tmp_path: Path) -> None:
    """Loading it would be a bus error."""
    for _ in range(2):
        environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
        ran = subprocess.run([sys.executable, "-c", LOAD], env=environment, capture_output=True, text=True, check=False)
        assert (ran.returncode, ran.stdout) == (0, "42\n"), ran.stderr
        (library,) = tmp_path.rglob("*.so")
        os.truncate(library, library.stat().st_size // 2)
