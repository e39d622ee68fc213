"""Coordinate ascent for topics of documents that are read in blocks, beside that of the same documents in memory."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from torch.utils.data import DataLoader, TensorDataset

from guidebook.inference import Posterior, cavi, stream
from guidebook.models import lda
from guidebook.models._shared import scratch
from guidebook.models.lda import in_blocks

TOPICS = "topic_words.concentration"
X = lda.simulate(130, num_topics=3, num_features=25, mean_total=50.0, seed=1)[0]
X = X[:, X.sum(0) > 0]  # unused words are warned of
STEPS = lda.cavi_steps(3, 0.2, 0.1)
HOW: dict[str, Any] = {"num_restarts": 2, "num_steps": 6, "num_draws": 5}


def batches(x: torch.Tensor, size: int) -> Callable[[], Iterator[torch.Tensor]]:
    return lambda: iter(x.split(size))


@pytest.fixture(scope="module")
def whole() -> Posterior:
    return cavi(STEPS, X, **HOW)


def source(kind: str, folder: Path) -> Any:
    """The counts in whatever a stream can be made of."""
    counts = sparse.csr_matrix(X.numpy().astype(np.int32))
    if kind == "mapped":
        np.save(folder / "x.npy", X.numpy().astype(np.uint8))
        return stream(np.load(folder / "x.npy", mmap_mode="r"))
    if kind == "npz":
        sparse.save_npz(folder / "x.npz", counts)
        return stream(folder / "x.npz")
    if kind == "folder":
        for part, rows in enumerate(X.split(50)):
            np.save(folder / f"{part}.npy", rows.float().numpy())
        return stream(folder)
    if kind == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        import pyarrow

        columns = {f"w{k}": column.numpy() for k, column in enumerate(X.T)}
        parquet.write_table(pyarrow.table(columns), folder / "x.parquet", row_group_size=40)
        return stream(folder / "x.parquet")
    if kind == "loader":
        return DataLoader(TensorDataset(X), 31)
    if kind == "sparse batches":
        return stream(lambda: map(torch.Tensor.to_sparse, X.split(17)))
    dense = {"array": X.numpy(), "callable": batches(X, 17)}
    return stream(dense[kind]) if kind in dense else stream(counts, dense=kind != "sparse")


KINDS = ("mapped", "npz", "folder", "parquet", "loader", "array", "callable", "sparse batches", "sparse", "as dense")


@pytest.mark.parametrize("size", [11, 37, 1000])
def test_any_number_of_documents_at_once_gives_the_fit_in_memory(
    whole: Posterior, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_blocks, "_documents_at_once", lambda x: size)
    check(cavi(STEPS, stream(sparse.csr_array(X.numpy())), **HOW), whole, rows_held=min(size, 130))


@pytest.mark.parametrize("kind", KINDS)
def test_any_source_gives_the_fit_in_memory(
    whole: Posterior, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_blocks, "_documents_at_once", lambda x: 40)
    check(cavi(STEPS, source(kind, tmp_path), **HOW), whole)


def check(found: Posterior, whole: Posterior, rows_held: int | None = None) -> None:
    torch.testing.assert_close(found.info.objective, whole.info.objective, rtol=1e-10, atol=0)
    torch.testing.assert_close(found.params[TOPICS], whole.params[TOPICS], rtol=1e-7, atol=1e-9)
    ours, known = ([(one["objective"], one["restarts"]) for one in fit.info.optima] for fit in (found, whole))
    np.testing.assert_allclose(ours, known, rtol=1e-10)
    assert list(found.params) == [TOPICS]
    assert list(found.draws) == ["topic_words"]
    assert whole.info.streamed is None
    assert found.info.streamed is not None
    assert found.info.streamed["bytes_kept"] == 8 * 130 * 3
    assert rows_held is None or found.info.streamed["rows_held"] == rows_held


def test_weights_that_are_too_many_for_memory_are_kept_in_a_file(
    whole: Posterior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, new_file = [], tempfile.TemporaryFile

    def noted() -> Any:
        made.append(new_file(dir=tmp_path))
        return made[-1]

    monkeypatch.setattr("tempfile.TemporaryFile", noted)
    for most in (130 * 3, 130 * 3 - 1):
        monkeypatch.setattr(scratch, "IN_MEMORY", most)
        check(cavi(STEPS, stream(X), **HOW), whole)
        assert bool(made) is (most < 130 * 3)
    assert all(file.closed for file in made)
    assert not list(tmp_path.iterdir())


def test_many_documents_start_at_topics_of_some(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same ones in memory and in blocks, drawn anew for every restart; all documents count in the end."""
    first = cavi(STEPS, X, **HOW | {"num_steps": 1}).info
    monkeypatch.setattr(lda.cavi, "PER_TOPIC", 1)
    for most in (129, 130):
        monkeypatch.setattr(lda.cavi, "MOST_STARTED_FROM", most)
        found, blocks = (cavi(STEPS, x, **HOW | {"num_steps": 1}) for x in (X, stream(X)))
        check(blocks, found)
        assert (found.info.elbo == first.elbo) is (most == 130)
        assert float((found.params[TOPICS] - 0.1).sum()) == pytest.approx(float(X.sum()), rel=1e-9)


def test_topics_far_apart_have_the_same_bound_in_blocks() -> None:
    """Products of exponentials that underflow are worked out from their logarithms, block by block."""
    x = torch.block_diag(*torch.full((3, 4, 5), 2.0)).double()
    x[0, 14] = 1.0
    steps = lda.cavi_steps(3, 1e-4, 1e-4)
    corpus = steps.prepare(x)[0]
    params = {TOPICS: 1e-4 + torch.block_diag(*torch.full((3, 1, 5), 8.0)).double()}
    params["topic_weights.concentration"] = 1e-4 + torch.block_diag(*torch.full((3, 4, 1), 10.0)).double()
    params["topic_weights.concentration"][0, 2] += 1.0 - 1e-9
    params["topic_weights.concentration"][0, 0] += 1e-9
    found = steps.e_step(params, corpus)
    for size in (5, 12):
        blocks = in_blocks.CorpusInBlocks(stream(x))
        blocks._size = size
        ours = steps.e_step(params, blocks)
        for one, known in zip(ours, found, strict=True):
            torch.testing.assert_close(one, known, rtol=1e-10, atol=1e-12)
        assert float(steps.objective(params, ours)) == pytest.approx(float(steps.objective(params, found)), rel=1e-12)


def test_a_fit_that_was_stopped_goes_on_to_the_same_numbers(
    whole: Posterior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, parts = [0], in_blocks.CorpusInBlocks.parts

    def stopping(self: in_blocks.CorpusInBlocks) -> Any:
        calls[0] += 1
        if calls[0] == 15:  # in the second restart
            raise KeyboardInterrupt
        return parts(self)

    how = {**HOW, "checkpoint": tmp_path, "every": 0.0}
    monkeypatch.setattr(in_blocks.CorpusInBlocks, "parts", stopping)
    with pytest.raises(KeyboardInterrupt):
        cavi(STEPS, stream(X), **how)
    again = cavi(STEPS, stream(X), **how)
    assert calls[0] < 15 + 9  # without the first restart, nor the start of the second
    check(again, whole)


def test_what_cannot_be_read_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    steps, quick = lda.cavi_steps(2), {"num_restarts": 1, "num_steps": 2, "num_draws": 1}
    with pytest.raises(
        ValueError, match=r"^lda: documents must come in the same order in every pass, and these are sh"
    ):
        cavi(steps, DataLoader(TensorDataset(X), 20, shuffle=True), **quick)
    passes = iter(range(100))
    with pytest.raises(ValueError, match=r"^lda: document \d+ is another one than in the pass before"):
        cavi(steps, stream(lambda: iter(X.roll(next(passes), 0).split(20)), num_rows=130), **quick)
    wrong = X.clone()
    wrong[77, 3] = -1.0
    with pytest.raises(ValueError, match=r"^lda: document 77, word 3 has -1, but counts are whole numbers"):
        cavi(steps, stream(batches(wrong, 20)), **quick)
    for size in (100, 50):  # batches that are read as they are, and that are joined
        monkeypatch.setattr(in_blocks, "_documents_at_once", lambda x, size=size: size)
        with pytest.raises(
            ValueError, match=r"^(lda: a batch has shape \(50, 5\), and|stream: batches have rows of diff)"
        ):
            cavi(steps, stream(lambda: iter([X[:50], X[50:100, :5]])), **quick)
    with pytest.raises(ValueError, match=r"^lda: counts must be a matrix of documents by words, got shape \(130,\)"):
        cavi(steps, stream(X[:, 0]), **quick)
    empty = torch.nn.functional.pad(X, (0, 1, 0, 1))
    with pytest.warns(UserWarning, match=r"lda: 1 of 131 documents are empty and 1 of \d+ words are unused"):
        cavi(steps, stream(empty), **quick)
