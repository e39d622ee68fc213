"""C++ that comes with models: compiled once, made anew where its file is damaged, and refused with a reason."""

import os
from pathlib import Path

import pooch
import pytest

from guidebook.models._shared import native
from guidebook.models._shared.native import CannotCompileError, load_cpp


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pooch, "os_cache", lambda _: tmp_path / "cache")
    return tmp_path / "cache" / "compiled"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "seven.cpp"
    file.write_text('extern "C" int seven() { return 7; }')
    return file


def test_a_library_is_compiled_once_and_made_anew_if_damaged_or_of_other_source(cache: Path, source: Path) -> None:
    assert load_cpp(source).seven() == 7
    (library,) = cache.iterdir()
    made = library.stat().st_mtime_ns
    assert load_cpp(source).seven() == 7
    assert library.stat().st_mtime_ns == made
    whole = library.read_bytes()
    library.unlink()  # or the process, which has it open, would end
    library.write_bytes(whole[: len(whole) // 2])
    assert load_cpp(source).seven() == 7
    assert library.read_bytes() == whole
    source.write_text('extern "C" int seven() { return 8; }')
    assert load_cpp(source).seven() == 8
    assert len(list(cache.iterdir())) == 2


def test_libraries_for_other_vector_instructions_are_others(
    cache: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_cpp(source)
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "another")
    monkeypatch.setitem(native._VECTORS, "another", ("-O1",))
    assert load_cpp(source).seven() == 7
    assert len(list(cache.iterdir())) == 2


def test_without_a_cache_a_library_serves_this_process(cache: Path, source: Path) -> None:
    cache.parent.write_text("a file where the folder should be")
    assert load_cpp(source).seven() == 7


def test_what_cannot_be_compiled_says_why(cache: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source.write_text("int seven() { return eight; }")
    with pytest.raises(CannotCompileError, match=r"failed: .*seven\.cpp"):
        load_cpp(source)
    assert not list(cache.iterdir())
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(CannotCompileError, match="there is no C"):
        load_cpp(source)
