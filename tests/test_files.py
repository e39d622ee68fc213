"""Where results go: pipes, devices and links stay what they are, a full disk leaves nothing, and runs stay apart."""

import json
import os
import resource
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from zoo.posteriors import by_em

from guidebook.inference import Posterior
from guidebook.workflow import drafts
from guidebook.workflow.drafts import release_all
from guidebook.workflow.files import atomic_write, drafted
from guidebook.workflow.manifest import MANIFEST, read_manifest

FIT = ("run", "gmm", "--method", "em", "--set", "num_components=2")


@pytest.fixture(autouse=True)
def _released():
    yield
    release_all()


def test_a_pipe_is_written_to(call: Callable, tmp_path: Path) -> None:
    pipe, found = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: found.append(pipe.read_text()))
    reader.start()
    assert call(*FIT, "--json", pipe)[0] == 0
    reader.join()
    assert json.loads(found[0])["model"] == "gmm"
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert [*tmp_path.iterdir()] == [pipe]


def test_a_link_is_followed_and_stays(call: Callable, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link, file = tmp_path / "link.json", tmp_path / "there" / "file.json"
    link.symlink_to(file)  # which is not there yet
    for _ in range(2):
        assert call(*FIT, "--json", link)[0] == 0
        assert link.is_symlink()
        assert json.loads(file.read_text())["model"] == "gmm"
    assert [*file.parent.iterdir()] == [file]


def device(path: Path, number: int) -> Path:
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, number))
        with path.open("w"):
            return path
    except OSError:
        pytest.skip("no devices can be made here")


def test_a_device_is_written_to_and_stays_one(call: Callable, tmp_path: Path) -> None:
    null = device(tmp_path / "null", 3)
    assert call(*FIT, "--json", null)[0] == 0
    assert stat.S_ISCHR(null.stat().st_mode)
    assert [*tmp_path.iterdir()] == [null]


def test_a_full_device_is_one_sentence(call: Callable, tmp_path: Path) -> None:
    full = device(tmp_path / "full", 7)
    assert call(*FIT, "--json", full) == (2, "", f"guidebook: {full}: No space left on device\n")
    assert stat.S_ISCHR(full.stat().st_mode)


def test_standard_output_by_its_path_is_written_to(tmp_path: Path) -> None:
    """Whoever reads the file holds it open: one that took its place would never be seen."""
    file = tmp_path / "out"
    with file.open("w") as stream:
        atomic_write(f"/proc/self/fd/{stream.fileno()}", "text")
        assert os.fstat(stream.fileno()).st_size == 4


@pytest.fixture
def small_files():
    """No file may grow beyond some bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (700, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("target", ["--out", "--json"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(call: Callable, tmp_path: Path, target: str) -> None:
    status, out, err = call(*FIT, target, tmp_path / "new")
    assert (status, out) == (2, "")
    named = "new/posterior.safetensors" if target == "--out" else "new"
    assert err == f"guidebook: {tmp_path / named}: File too large\n"
    assert [*tmp_path.iterdir()] == []


@pytest.mark.usefixtures("small_files")
def test_a_posterior_that_does_not_fit_leaves_the_last_one(tmp_path: Path) -> None:
    file = tmp_path / "p.safetensors"
    file.write_text("old")
    with pytest.raises(OSError, match="File too large"):
        by_em({"w": torch.zeros(1, 1, 10_000)}).save(file)
    assert [(found, found.read_text()) for found in tmp_path.iterdir()] == [(file, "old")]


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_files_have_the_permissions_of_new_files(call: Callable, tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        assert call(*FIT, "--out", tmp_path / "out", "--json", tmp_path / "x.json")[0] == 0
        by_em({"w": torch.zeros(1, 1, 2)}).save(tmp_path / "p.safetensors")
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o666 & ~mask}
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o777 & ~mask


def test_a_file_keeps_the_permissions_that_it_was_given(tmp_path: Path) -> None:
    file = atomic_write(tmp_path / "a.txt", "old")
    file.chmod(0o600)
    assert stat.S_IMODE(atomic_write(file, "new").stat().st_mode) == 0o600
    assert file.read_text() == "new"


def write(folder: Path, record: dict | None, **texts: str) -> list[str]:
    with drafted(folder, record) as draft:
        for name, text in texts.items():
            (draft / name).write_text(text)
    return sorted(path.name for path in folder.iterdir())


def test_files_of_an_earlier_run_go_unless_they_were_changed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert write(out, {"command": ["fit"]}, a="1", b="1", c="1") == ["a", "b", "c", MANIFEST]
    (out / "c").write_text("the user's own")
    (out / "mine").write_text("the user's own")
    assert write(out, {"command": ["run"]}, a="2") == ["a", "c", "mine", MANIFEST]
    found = read_manifest(out)
    assert found is not None
    assert (found["command"], [*found["files"]]) == (["run"], ["a"])


def test_a_folder_can_be_written_twice_by_one_process(tmp_path: Path) -> None:
    drafts.claim(tmp_path / "out")  # as a command does before it fits
    write(tmp_path / "out", {"command": ["run"]}, a="1")
    assert write(tmp_path / "out", {"command": ["run"]}, b="1") == ["b", MANIFEST]
    release_all()
    assert [*tmp_path.iterdir()] == [tmp_path / "out"]


def test_what_is_said_of_a_run_joins_its_files_and_goes_with_them(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, {"command": ["run"]}, a="1")
    assert write(out, None, check="1") == ["a", "check", MANIFEST]
    assert write(out, {"command": ["run"]}, a="2") == ["a", MANIFEST]


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "link", "folder", ".."])
def test_a_manifest_cannot_have_anything_else_removed(tmp_path: Path, name: str) -> None:
    out, outside = tmp_path / "out", tmp_path / "outside"
    (out / "folder").mkdir(parents=True)
    outside.write_text("1")
    (out / "link").symlink_to(outside)
    digest = "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"  # of "1"
    (out / MANIFEST).write_text(json.dumps({"files": {name: digest}}))
    write(out, {"command": ["run"]}, a="2")
    assert outside.read_text() == "1"
    assert (out / "link").is_symlink()


def test_a_report_without_its_comparison_is_not_indexed(call: Callable, tmp_path: Path) -> None:
    """A fit into the folder of a comparison takes the comparison's files away with its report."""
    out = tmp_path / "out"
    assert call("compare", "gmm", "--methods", "em,cavi", "--out", out)[0] == 0
    assert {"comparison.json", "em.safetensors"} <= {path.name for path in out.iterdir()}
    assert call(*FIT, "--out", out)[0] == 0
    assert not {"comparison.json", "em.safetensors"} & {path.name for path in out.iterdir()}
    assert call("index", out, "--out", tmp_path / "i.html")[0] == 2


def test_an_interrupt_while_files_move_waits_until_all_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    write(out, None, a="1", b="1", c="1")
    moved = []
    replace = Path.replace

    def interrupted(self: Path, target: Path) -> Path:
        moved.append(self.name)
        if len(moved) == 2:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(out, None, a="2", b="2", c="2")
    assert [(out / name).read_text() for name in "abc"] == ["2", "2", "2"]
    assert not drafts._held


def test_versions_and_run_are_in_the_saved_posterior(call: Callable, tmp_path: Path) -> None:
    from safetensors import safe_open

    assert call(*FIT, "--seed", "3", "--out", tmp_path / "out")[0] == 0
    file = tmp_path / "out" / "posterior.safetensors"
    with safe_open(file, framework="pt") as opened:
        about = json.loads(opened.metadata()["about"])
    assert about["versions"]["torch"] == torch.__version__
    assert (about["seed"], about["options"]["num_components"]) == (3, 2)
    assert Posterior.load(file).info.seed == 3
