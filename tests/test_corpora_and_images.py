"""Sparse counts, vocabularies, Reuters, IDX and MNIST, on files that the tests write themselves."""

import gzip
import hashlib
import importlib
import struct
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from scipy import io, sparse

from guidebook import datasets
from guidebook.datasets.readers import archives

mnist_module = importlib.import_module("guidebook.datasets.mnist")  # the package has a function of that name
COUNTS = np.array([[0, 2, 0, 1], [3, 0, 0, 0], [0, 0, 0, 5]])


def refused(path: Path, *parts: str, **options: object) -> None:
    with pytest.raises((ValueError, OSError)) as error:
        datasets.load(str(path), **options)
    message = str(error.value)
    assert "\n" not in message
    for part in (*parts, str(options.get("vocabulary", path))):
        assert part in message


# ------------------------------------------------------------------------------------------------------------- counts


@pytest.mark.parametrize("form", ["mtx", "dense mtx", "npz csr", "npz coo"])
def test_sparse_files_hold_what_was_written(tmp_path: Path, form: str) -> None:
    path = tmp_path / ("counts.mtx" if "mtx" in form else "counts.npz")
    if "mtx" in form:
        io.mmwrite(path, COUNTS if "dense" in form else sparse.coo_matrix(COUNTS))
    else:
        sparse.save_npz(path, sparse.csr_matrix(COUNTS) if "csr" in form else sparse.coo_matrix(COUNTS))
    data = datasets.load(str(path))
    assert data.x.tolist() == COUNTS.tolist()
    assert data.columns == ("x0", "x1", "x2", "x3")
    words = tmp_path / "words.txt"
    words.write_text("bread\nwine\nold  cheese\ntoys\n", encoding="utf-8")
    assert datasets.load(str(path), vocabulary=str(words)).columns == ("bread", "wine", "old cheese", "toys")


def test_damaged_sparse_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = tmp_path / "good.mtx"
    io.mmwrite(good, sparse.coo_matrix(COUNTS))
    for name, text, word in (
        ("empty.mtx", "", "not a Matrix Market file"),
        ("text.mtx", "1 2 3\n", "not a Matrix Market file"),
        ("cut.mtx", "\n".join(good.read_text().splitlines()[:-2]), "cannot be read"),
        ("nan.mtx", "%%MatrixMarket matrix array real general\n2 2\n1\nnan\n3\n4\n", "row 1, column 0"),
        ("complex.mtx", "%%MatrixMarket matrix array complex general\n1 2\n1 0\n2 1\n", "real numbers are needed"),
    ):
        (tmp_path / name).write_text(text)
        refused(tmp_path / name, word)
    refused(good, "no place for labels", target="x0")
    damaged = tmp_path / "damaged.npz"
    np.savez(damaged, format=np.array("csr"), shape=[3, 4], data=[1.0])
    refused(damaged, "sparse matrix")
    monkeypatch.setattr(archives, "MOST_CELLS", 11)
    refused(good, "3 × 4", "leave out rare words")


def test_vocabularies_that_do_not_fit(tmp_path: Path) -> None:
    good = tmp_path / "good.mtx"
    io.mmwrite(good, sparse.coo_matrix(COUNTS))
    for name, raw, word in (
        ("short.txt", b"a\nb\n", "2 lines, and the data have 4 columns"),
        ("gap.txt", b"a\n\nb\nc\n", "line 2 is empty"),
        ("twice.txt", b"a\nb\na\nc\n", "line 3 repeats 'a' of line 1"),
        ("bytes.txt", b"\xff\xfe\n", "not UTF-8"),
    ):
        (tmp_path / name).write_bytes(raw)
        refused(good, word, vocabulary=str(tmp_path / name))
    refused(good, "cannot be read", vocabulary=str(tmp_path / "none.txt"))
    with pytest.raises(ValueError, match="has names of columns already"):
        datasets.load("iris", vocabulary="words.txt")


def test_reuters_has_its_published_size() -> None:
    data = datasets.load("reuters")
    assert data.x.shape == (395, 4258)
    assert data.x.sum() == 84_010
    assert data.columns[:3] == ("church", "pope", "years")
    counts, vocabulary, titles = datasets.reuters()
    assert (counts == data.x.numpy()).all()
    assert len(vocabulary) == 4258
    assert titles[0].startswith("0 UK: Prince Charles")
    with pytest.raises(ValueError, match="reuters: has no labels"):
        datasets.load("reuters", supervised=True)


# ------------------------------------------------------------------------------------------------------------- images


def idx(values: np.ndarray, code: int, kind: str) -> bytes:
    header = bytes([0, 0, code, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    return header + values.astype(kind).tobytes()


@pytest.mark.parametrize(("code", "kind"), [(8, ">u1"), (9, ">i1"), (11, ">i2"), (12, ">i4"), (13, ">f4"), (14, ">f8")])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_of_every_type(tmp_path: Path, code: int, kind: str, pack: object) -> None:
    values = np.arange(24).reshape(2, 3, 4)
    path = tmp_path / "values"
    path.write_bytes(pack(idx(values, code, kind)))  # type: ignore[operator]
    found = datasets.read_idx(path)
    assert found.dtype == np.dtype(kind).newbyteorder("=")
    assert (found == values).all()


def test_damaged_idx(tmp_path: Path) -> None:
    whole = idx(np.arange(6).reshape(2, 3), 8, ">u1")
    for raw, word in (
        (b"", "not an IDX file"),
        (b"PK\3\4....", "not an IDX file"),
        (whole[:8], "cut short"),
        (whole[:-1], "17 bytes where its header, of shape (2, 3), promises 18"),
        (whole + b"\0", "19 bytes"),
        (gzip.compress(whole)[:-4], "damaged or cut short"),
    ):
        (tmp_path / "bad").write_bytes(raw)
        with pytest.raises(ValueError, match="bad: ") as error:
            datasets.read_idx(tmp_path / "bad")
        assert word in str(error.value)


def small_mnist(folder: Path, part: str, rows: int, *, packed: bool = True) -> np.ndarray:
    images = np.random.default_rng(0).integers(0, 256, (rows, 28, 28))
    for name, values in (("images-idx3", images), ("labels-idx1", np.arange(rows) % 10)):
        raw = idx(values, 8, ">u1")
        path = folder / f"{part}-{name}-ubyte"
        if packed:
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(raw))
        else:
            path.write_bytes(raw)
    return images


@pytest.mark.parametrize("packed", [True, False])
def test_mnist_put_there_by_hand_needs_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    monkeypatch.setenv("GUIDEBOOK_DATA", str(tmp_path))
    monkeypatch.setattr(mnist_module, "URL", "http://127.0.0.1:9/")
    images = small_mnist(tmp_path, "train", 5, packed=packed)
    data = datasets.load("mnist")
    np.testing.assert_allclose(data.x.numpy(), images.reshape(5, 784) / 255)
    assert data.columns[29] == "pixel_1_1"
    assert datasets.mnist()[1].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(OSError, match=r"t10k-images.*by hand"):
        datasets.mnist("test")
    with pytest.raises(ValueError, match="train or test"):
        datasets.mnist("validation")
    small_mnist(tmp_path, "train", 6, packed=packed)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.arange(5), 8, ">u1"))
    with pytest.raises(ValueError, match="do not go together"):
        datasets.mnist()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder served on this machine."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{httpd.server_port}/"
        httpd.shutdown()
        thread.join()


def test_mnist_is_downloaded_once_and_its_hash_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: tuple[Path, str]
) -> None:
    folder, url = server
    images = small_mnist(folder, "t10k", 4)
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    monkeypatch.setenv("GUIDEBOOK_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(mnist_module, "URL", url)
    with pytest.raises(OSError, match="t10k-images"):  # the real hashes
        datasets.mnist("test")
    assert not list((tmp_path / "cache").glob("t10k*"))
    monkeypatch.setattr(mnist_module, "HASHES", hashes)
    for _ in range(2):
        np.testing.assert_allclose(datasets.mnist("test")[0], images.reshape(4, 784) / 255)
        for path in folder.iterdir():
            path.unlink()
