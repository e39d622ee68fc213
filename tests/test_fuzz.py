"""Damaged and hostile files: each is read, or refused in one sentence. `reliability.fuzz` does it for longer."""

import io
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from guidebook import datasets
from guidebook.inference import Posterior
from guidebook.workflow.fitted import read_record
from guidebook.workflow.own.data import read_arguments

sys.path.append(str(Path(__file__).parents[1]))  # reliability is no part of the package

from reliability import fuzz
from reliability.damage import nested


def test_damaged_files_are_read_or_refused_in_a_sentence(tmp_path: Path) -> None:
    count, findings = fuzz.fuzz(2.4, tmp_path, seed=1)
    assert count > 50
    assert not findings


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"indptr": [0, 10**9, 2]}, "indptr must not decrease"),
        ({"indptr": [0, 2, 0]}, "indptr must not decrease"),
        ({"indptr": np.array([0, 1, -(2**31)], np.int32)}, "indptr must not decrease"),  # the step down overflows
        ({"indices": [0, 99]}, "indices must be < 3"),
        ({"indices": [0, -3]}, "indices must be >= 0"),
        ({"indptr": [0, 1]}, "index pointer size"),
        ({"indptr": [0, 1, 9]}, "Last value of index pointer"),
    ],
)
def test_a_sparse_matrix_that_points_outside_itself_is_refused(tmp_path: Path, change: dict, reason: str) -> None:
    """Made dense, it would read or write memory that is not its own."""
    parts = {"indices": [0, 2], "indptr": [0, 1, 2], "format": b"csr", "shape": (2, 3), "data": [5.0, 7.0]}
    np.savez(tmp_path / "good.npz", **parts)
    assert datasets.load(str(tmp_path / "good.npz")).x.tolist() == [[5.0, 0.0, 0.0], [0.0, 0.0, 7.0]]
    np.savez(tmp_path / "bad.npz", **(parts | change))
    with pytest.raises(ValueError, match=rf"bad\.npz: the sparse matrix in it cannot be read: .*{reason}"):
        datasets.load(str(tmp_path / "bad.npz"))


def test_an_archive_that_unpacks_to_more_than_is_read_is_refused_unopened(tmp_path: Path) -> None:
    file, header = tmp_path / "bomb.npz", io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (210_000_000, 1)})
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header.getvalue())
    raw = bytearray(file.read_bytes())
    for signature, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):  # the size that it claims to unpack to
        start = raw.index(signature)
        raw[start + place : start + place + 4] = struct.pack("<I", 1_680_000_128)
    file.write_bytes(raw)
    for read in (lambda: datasets.load(str(file)), lambda: read_arguments(str(file), ["x"])):
        with pytest.raises(ValueError, match=r"its arrays unpack to 1\.7 GB, and 1\.6 GB are read at most"):
            read()


def test_a_matrix_market_file_too_large_to_make_dense_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "large.mtx"
    file.write_text("%%MatrixMarket matrix array real general\n100000 100000\n1.0\n")
    with pytest.raises(ValueError, match="100000 × 100000 is more than 200,000,000 cells"):
        datasets.load(str(file))


def test_json_nested_beyond_reason_is_refused(tmp_path: Path) -> None:
    deep = nested(100_000)
    (tmp_path / "deep.json").write_bytes(b'{"x": ' + deep + b"}")
    with pytest.raises(ValueError, match=r"deep\.json is no JSON"):
        read_arguments(str(tmp_path / "deep.json"), ["x"])
    (tmp_path / "result.json").write_bytes(deep)
    with pytest.raises(ValueError, match="holds no fit"):
        read_record(tmp_path)
    header = b'{"__metadata__": {"guidebook": "' + deep + b'"}}'
    (tmp_path / "deep.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(ValueError, match="is not a posterior saved by guidebook"):
        Posterior.load(tmp_path / "deep.safetensors")


def test_a_table_of_40_000_columns_is_read_in_a_time_linear_in_them(tmp_path: Path) -> None:
    """Ten times the columns take ten times the work, not a hundred: counted in the comparisons of names."""
    for width in (4_000, 40_000):
        names = ",".join(f"column {k}" for k in range(width))
        rows = "\n".join(",".join(str(row + k % 7) for k in range(width)) for row in range(3))
        (tmp_path / "wide.csv").write_text(f"{names}\n{rows}\n")
        data = datasets.load(str(tmp_path / "wide.csv"))
        assert data.x.shape == (3, width)
        assert data.columns[-1] == f"column {width - 1}"


def test_sparse_matrices_of_every_format_come_back(tmp_path: Path) -> None:
    dense = np.array([[1.0, 0.0, 2.0, 0.0], [0.0, 0.0, 3.0, 4.0]])
    for form in ("csr", "csc", "coo", "bsr", "dia"):
        scipy.sparse.save_npz(tmp_path / "x.npz", scipy.sparse.csr_matrix(dense).asformat(form))
        assert np.array_equal(datasets.load(str(tmp_path / "x.npz")).x.numpy(), dense)
