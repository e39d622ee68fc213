"""Numbers of any type in arrays, mapped files and Arrow tables: none is changed, and files are read block by block."""

from pathlib import Path

import numpy as np
import pytest
import torch

from guidebook.inference import stream
from guidebook.inference.streams import arrays

KINDS = ("<u2", ">u2", "<u4", "<u8", ">f8", ">i4", "u1", "<f4")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by", ["rows", "blocks"])
def test_mapped_numbers_are_converted_block_by_block(
    kind: str, by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever torch has no type for; no more rows than are asked for are ever made into a tensor."""
    values = (np.arange(3000).reshape(1000, 3) % 250 + (60_000 if kind[1:] == "u2" else 0)).astype(kind)
    np.save(tmp_path / "x.npy", values)
    made, convert = [], arrays.without_copy
    monkeypatch.setattr(arrays, "without_copy", lambda name, part: made.append(len(part)) or convert(name, part))
    found = stream(np.load(tmp_path / "x.npy", mmap_mode="r"), by=by)
    assert made == []
    blocks = list(found.split(64))
    assert np.array_equal(torch.cat(blocks).numpy(), values)
    if by == "rows":
        assert np.array_equal(found[torch.tensor([7, 3, 999])].numpy(), values[[7, 3, 999]])
        assert max(made, default=0) <= 64
    assert found.dtype == blocks[0].dtype


def test_folders_of_unsigned_numbers_are_read_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = 64_900 + np.arange(600, dtype=np.uint16).reshape(200, 3)
    np.save(tmp_path / "a.npy", values[:120])
    np.save(tmp_path / "b.npy", values[120:])
    monkeypatch.setattr(arrays, "READ", 30)
    found = stream(tmp_path)
    assert np.array_equal(torch.cat(list(found.split(50))).numpy(), values)
    assert max(len(block[0]) for block in found.blocks()) == 10


def test_whole_numbers_past_int64_are_refused_and_those_before_it_kept() -> None:
    for value, fine in ((2**63 - 1, True), (2**63, False)):
        values = np.array([[1], [value]], dtype=np.uint64)
        if fine:
            assert int(torch.cat(list(stream(values).split(1)))[1]) == value
        else:
            with pytest.raises(ValueError, match="stream: an array has whole numbers beyond the range of int64"):
                list(stream(values).split(1))


@pytest.mark.parametrize("value", [2**24 + 1, 2**53])
def test_a_target_of_large_whole_numbers_keeps_its_digits(value: int) -> None:
    """Beside a matrix of float32, which stays so."""
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"a": pyarrow.array([0.5, 1.5], pyarrow.float32()), "y": [value, 3]})
    ((x, y),) = stream(table, target="y").blocks()
    assert (x.dtype, y.dtype) == (torch.float32, torch.float64)
    assert y.tolist() == [value, 3]
    small = table.set_column(1, "y", pyarrow.array([1, 0], pyarrow.int8()))
    assert next(stream(small, target="y").blocks())[1].dtype == torch.float32
