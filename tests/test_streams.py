"""Data that do not fit in memory: every source gives the same rows, and fits to blocks of them the same answer."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from scipy import sparse
from scipy.stats import kstest
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from zoo import linear

from guidebook import guides
from guidebook.inference import cavi, em, nuts, stream, svi
from guidebook.inference.checkpoints.fingerprint import fingerprint
from guidebook.inference.optim.minibatch import in_batches, row_scale
from guidebook.inference.streams import order
from guidebook.inference.streams.batches import StreamBatches
from guidebook.inference.streams.order import Order, gather, permuted
from guidebook.models import factor_analysis, gmm, mixture, ppca
from guidebook.models import linear as linear_model

X = torch.randn(230, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
QUIET = {"progress": False}


def batches(*arrays: Any, size: int = 40) -> Callable[[], Iterator]:
    """A function that makes an iterator of batches."""

    def make() -> Iterator:
        for start in range(0, len(arrays[0]), size):
            parts = tuple(value[start : start + size] for value in arrays)
            yield parts if len(parts) > 1 else parts[0]

    return make


class Rows(IterableDataset):
    def __iter__(self) -> Iterator:
        yield from X


def sources(folder: Path) -> dict[str, Any]:
    whole = X.numpy()
    np.save(folder / "x.npy", whole)
    (folder / "parts").mkdir()
    for part, rows in enumerate(np.array_split(whole, 3)):
        np.save(folder / "parts" / f"{part}.npy", rows)
    sparse.save_npz(folder / "x.npz", sparse.csr_matrix(whole))
    return {
        "array": whole,
        "tensor": X,
        "mapped": np.load(folder / "x.npy", mmap_mode="r"),
        "npy": folder / "x.npy",
        "folder": str(folder / "parts"),
        "sparse": sparse.csr_array(whole),
        "sparse tensor": X.to_sparse(),
        "sparse file": folder / "x.npz",
        "loader": DataLoader(TensorDataset(X), 7),
        "loader of an iterable": DataLoader(Rows(), 7),
        "callable": batches(X),
        "arrays": batches(whole),
        "list": list(batches(X)()),
    }


NAMES = ("array", "tensor", "mapped", "npy", "folder", "sparse", "sparse tensor", "sparse file", "loader")
NAMES += ("loader of an iterable", "callable", "arrays", "list")


@pytest.mark.parametrize("name", NAMES)
def test_every_source_gives_all_rows_in_order_pass_after_pass(name: str, tmp_path: Path) -> None:
    found = stream(sources(tmp_path)[name])
    assert found.shape == (230, 3)
    assert found.dtype == torch.float64
    for size in (1, 40, 64, 230, 300):
        blocks = list(found.split(size))
        assert [len(block) for block in blocks[:-1]] == [size] * (len(blocks) - 1)
        torch.testing.assert_close(torch.cat(blocks), X, rtol=0, atol=0)
    rows = torch.tensor([3, 229, 0, 100])
    assert torch.equal(found[rows].sort(0).values, X[rows].sort(0).values)
    assert found.rows_held <= 230
    assert found.held()["rows"] == 230


def test_parquet_and_arrow_give_the_rows_of_their_columns(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet, feather = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow.feather")
    table = pyarrow.table({name: X[:, k].numpy() for k, name in enumerate("abc")} | {"y": range(230)})
    parquet.write_table(table, tmp_path / "x.parquet", row_group_size=50)
    feather.write_feather(table, str(tmp_path / "x.feather"))
    (tmp_path / "parts").mkdir()
    for part in range(2):
        parquet.write_table(table[115 * part : 115 * (part + 1)], tmp_path / "parts" / f"{part}.parquet")
    for source in (tmp_path / "x.parquet", tmp_path / "x.feather", tmp_path / "parts", table):
        found = stream(source, target="y")
        x, y = (torch.cat(parts) for parts in zip(*found.blocks(64), strict=True))
        assert torch.equal(x, X)
        assert torch.equal(y, torch.arange(230.0, dtype=x.dtype))
        assert torch.equal(stream(source, columns=["b"])[torch.arange(230)], X[:, 1:2])
        shuffled = torch.cat([block[1] for block in found.blocks(64, seed=3)])
        assert torch.equal(shuffled.sort().values, y)
    assert not torch.equal(torch.cat([b[1] for b in stream(tmp_path / "x.parquet", target="y").blocks(64, seed=3)]), y)
    with pytest.raises(ValueError, match="there is no column 'z'; columns are a, b, c, y"):
        stream(table, target="z")
    with pytest.raises(ValueError, match="column 'a' has missing values"):
        list(stream(pyarrow.table({"a": [1.0, None]})).blocks())
    with pytest.raises(ValueError, match="column 'a' is of string, and numbers are needed"):
        stream(pyarrow.table({"a": ["one"]}))
    (tmp_path / "bad.parquet").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"bad.parquet: this is no .parquet file, or it is damaged"):
        stream(tmp_path / "bad.parquet")


def test_a_changed_file_is_another_source(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.table({"a": [1.0, 2.0]}), path)
    before, again = (fingerprint(stream(path)) for _ in range(2))
    assert before == again
    parquet.write_table(pyarrow.table({"a": [1.0, 3.0]}), path)
    assert fingerprint(stream(path)) != before


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (iter([X]), "stream: a list_iterator can be read once only: give a function that returns a new one"),
        (3, "stream: an int holds no rows that could be read in blocks"),
        ([{"x": X}], "stream: a batch is a dict: give a tuple, in the order of the model's arguments"),
        ([(X, X[:3])], "stream: the parts of a batch have 230, 3 rows"),
        (["words"], "stream: a batch must be a tensor or array with rows, or a tuple of them, got a str"),
        ([], "stream: there are no rows"),
        ((X, X[:3]), r"stream: arrays must have as many rows, and at least one; they have \[230, 3\]"),
        (np.array(["a"]), "stream: an array is of <U1, and numbers of 64 bits at most are needed"),
        ("there/is/none.npy", "stream: no such file: there/is/none.npy"),
    ],
)
def test_what_cannot_be_read_is_said(source: Any, sentence: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        _ = stream(source).shape


def test_a_pass_has_as_many_rows_as_were_said() -> None:
    with pytest.raises(ValueError, match="stream: a pass has 230 rows, and there were to be 300"):
        list(stream(batches(X), num_rows=300).blocks(64))


def test_an_error_of_a_reader_is_raised_where_its_rows_are_read(tmp_path: Path) -> None:
    """By way of the thread that reads ahead; and a reader that is left is let go."""
    for part, columns in ((0, 3), (1, 3)):
        np.save(tmp_path / f"{part}.npy", np.ones((10, columns)))
    found = stream(tmp_path)
    assert len(next(found.blocks(15))[0]) == 15
    found._passes = lambda seed: (1 / 0 for _ in range(1))  # pyright: ignore
    with pytest.raises(ZeroDivisionError):
        list(found.blocks(5))


@pytest.mark.parametrize("size", [2, 3, 10, 1000, 4097])
def test_many_rows_are_permuted_without_a_list_of_them(size: int) -> None:
    torch.manual_seed(size)
    orders = torch.stack([permuted(torch.arange(size), size, torch.randint(2**31, (4,))) for _ in range(20)])
    assert all(len(one.unique()) == size for one in orders)
    assert len(orders.unique(dim=0)) > 1
    if size > 500:
        ranks = torch.corrcoef(torch.cat([torch.arange(size)[None], orders]).double())
        off = ranks[~torch.eye(21, dtype=torch.bool)].abs() * size**0.5
        assert off.max() < 5  # of 210 standard normals


@pytest.mark.parametrize("size", [2**30, 2**30 + 1, 5 * 10**9])
def test_places_of_very_many_rows_are_uniform_and_independent(size: int) -> None:
    """The widths of numbers change at 2**30 rows."""
    torch.manual_seed(1)
    places = torch.tensor([0, 1, size // 2, size - 1])
    found = torch.stack([permuted(places, size, torch.randint(2**31, (4,))) for _ in range(1000)]).double() / size
    apart = torch.stack([(found[:, i] - found[:, j]) % 1 for i in range(4) for j in range(i)], 1)
    for column in torch.cat([found, apart], 1).T:
        assert kstest(column.numpy(), "uniform").pvalue > 1e-5  # of 30
    some = permuted(torch.arange(size - 5000, size), size, torch.randint(2**31, (4,)))
    assert len(some.unique()) == 5000
    assert 0 <= some.min() <= some.max() < size


def test_epochs_of_many_rows_are_without_replacement(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(order, "MAX_ROWS", 9)
    found = Order(10, 3, torch.device("cpu"))
    epochs = found.take(3 * 20).view(20, 9)
    assert all(len(epoch.unique()) == 9 for epoch in epochs)
    assert len(epochs.unique(dim=0)) > 15
    at = found.take(1), found.state()
    again = Order(10, 3, torch.device("cpu"))
    again.restore(at[1])
    assert torch.equal(found.take(2), again.take(2))


@pytest.mark.parametrize("kind", ["array", "callable", "loader"])
def test_minibatches_are_epochs_without_replacement_and_go_on_where_they_were(kind: str) -> None:
    numbers = torch.arange(23.0)[:, None]
    source: Any = {
        "array": numbers,
        "callable": batches(numbers, size=4),
        "loader": DataLoader(TensorDataset(numbers), 5, shuffle=True),
    }[kind]
    torch.manual_seed(0)
    found = StreamBatches(stream(source), 5, (numbers,))
    epochs = gather(found.take(4 * 30)[0]).view(30, 20)
    assert all(len(epoch.unique()) == 20 for epoch in epochs)
    assert len(epochs.unique(dim=0)) > 25
    assert len(epochs.unique()) == 23
    found.take(6)
    state, generator = found.state(), torch.get_rng_state()
    then = gather(found.take(7)[0])
    again = StreamBatches(stream(source), 5, (numbers,))
    again.restore(state)
    torch.set_rng_state(generator)
    assert torch.equal(gather(again.take(7)[0]), then)


def test_a_pass_of_several_buffers_goes_on_where_it_was_whatever_is_drawn_between_its_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("guidebook.inference.streams.batches.BUFFER", 10)
    numbers = torch.arange(23.0)[:, None]

    def taken(found: StreamBatches, count: int) -> torch.Tensor:
        rows = []
        for _ in range(count):
            rows.append(next(found)[0])
            torch.randn(3)  # as a guide draws noise
        return torch.cat(rows)

    torch.manual_seed(0)
    found = StreamBatches(stream(batches(numbers, size=4)), 5, (numbers,))
    first, state, generator = taken(found, 3), found.state(), torch.get_rng_state()
    then = taken(found, 4)
    assert len(torch.cat([first, then[:5]]).unique()) == 20
    again = StreamBatches(stream(batches(numbers, size=4)), 5, (numbers,))
    again.restore(state)
    torch.set_rng_state(generator)
    assert torch.equal(taken(again, 4), then)


@pytest.mark.filterwarnings("ignore:svi")
def test_a_loader_that_shuffles_gives_the_same_fit_for_a_seed_and_leaves_the_generator_alone() -> None:
    x, y = linear.data(100)
    loader = DataLoader(TensorDataset(x, y), 20, shuffle=True)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    source = stream(loader)
    fits = [svi(linear.model, guides.mean_field, source, num_steps=20, **QUIET).samples["w"] for _ in range(2)]
    assert torch.equal(*fits)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(svi(linear.model, guides.mean_field, loader, num_steps=20, **QUIET).samples["w"], fits[0])


def test_scaled_minibatches_average_to_the_log_joint_of_all_rows() -> None:
    """Over an epoch, globals counting once: FACTS' identity 7."""
    x, y = linear.data(60)
    w = torch.randn(3, dtype=x.dtype)
    whole = poutine.trace(poutine.condition(linear.model, {"w": w})).get_trace(x, y).log_prob_sum()
    source, example, size = in_batches((stream(batches(x, y, size=7)),), 12)
    assert source is not None
    assert size == 12
    scale = row_scale(linear.model, example, 12, autoguide=True, num_rows=len(source))
    scaled = poutine.condition(scale(linear.model), {"w": w})
    parts = StreamBatches(source, 12, example)
    found = [poutine.trace(scaled).get_trace(*next(parts)).log_prob_sum() for _ in range(5)]
    assert len({float(value) for value in found}) == 5
    torch.testing.assert_close(torch.stack(found).mean(), whole, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("kind", "engine"), [("callable", "compiled"), ("loader", "eager")])
def test_svi_on_batches_reaches_the_exact_posterior(kind: str, engine: str) -> None:
    """Rows and targets stay together, and the likelihood counts N / B times; within Monte Carlo error of the fit."""
    x, y = linear.data(500)
    exact = linear.posterior(x, y)
    source: Any = DataLoader(TensorDataset(x, y), 50, shuffle=True) if kind == "loader" else batches(x, y, size=33)
    size = {} if kind == "loader" else {"batch_size": 50}
    how = {"num_steps": 3000 if engine == "compiled" else 600, "lr": 0.05, "engine": engine, **QUIET}
    found = svi(linear.model, guides.full_rank, stream(source), **size, **how)
    w = found.samples["w"].double()
    assert ((w.mean(0) - exact.mean) / exact.stddev).abs().max() < 0.4
    assert (w.std(0) / exact.stddev - 1).abs().max() < 0.3
    assert found.info.streamed is not None
    assert found.info.streamed["rows"] == 500
    assert found.info.streamed["rows_held"] <= 500


def subsampled(x: torch.Tensor, num_rows: int) -> None:
    """A model that scales for the rows it is not given by itself."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", num_rows, subsample_size=len(x)):
        pyro.sample("x", dist.Normal(w, 1.0), obs=x)


@pytest.mark.parametrize("kind", ["blocks", "fewer examples than rows", "tensor"])
def test_a_model_that_subsamples_by_itself_is_not_scaled_twice(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its posterior is that of 400 rows: sd (1 + 400)^-½, and not that of 4,000."""
    x = torch.randn(400, generator=torch.Generator().manual_seed(1)) + 0.5
    if kind == "fewer examples than rows":
        monkeypatch.setattr("guidebook.inference.streams.rows.EXAMPLE", 100)
    rows = x if kind == "tensor" else stream(batches(x))
    how = {"batch_size": 40, "num_steps": 1000, "lr": 0.02, "engine": "eager", **QUIET}
    w = svi(lambda rows: subsampled(rows, 400), guides.mean_field, rows, **how).samples["w"]
    assert float(w.std() * 401**0.5) == pytest.approx(1, abs=0.2)
    assert float(w.mean() - x.sum() / 401) * 401**0.5 == pytest.approx(0, abs=0.3)


@pytest.mark.parametrize("kind", ["blocks", "large"])
def test_curvature_at_the_mode_is_that_of_all_rows(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of those at which the model is looked: a tenth or less, whose sds would be three times as large."""
    monkeypatch.setattr("guidebook.inference.streams.rows.EXAMPLE", 50)
    monkeypatch.setattr("guidebook.inference.optim.minibatch.MAX_ROWS", 499)
    given = linear.data(500)
    rows = given if kind == "large" else (stream(batches(*given)),)
    how = {"num_steps": 1500, "lr": 0.02, "num_draws": 4000, "engine": "eager", **QUIET}
    found = svi(linear.model, guides.laplace, *rows, batch_size=25, **how).samples["w"]
    assert (found.std(0) / linear.posterior(*given).stddev - 1).abs().max() < 0.08  # seven errors of 4,000 draws


def test_curvature_of_all_rows_is_all_there_is_where_the_prior_is_flat() -> None:
    """A mean with a flat prior: normal with sd 1 / √n."""

    def model(x: torch.Tensor) -> None:
        mean = pyro.sample("mean", dist.ImproperUniform(dist.constraints.real, (), ()))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    rows = stream(batches(torch.randn(12_000, generator=torch.Generator().manual_seed(0)), size=700))
    how = {"batch_size": 100, "num_steps": 100, "num_draws": 4000, "engine": "eager", **QUIET}
    found = svi(model, guides.laplace, rows, **how).samples["mean"]
    assert float(found.std() * 12_000**0.5) == pytest.approx(1, abs=0.08)  # of 10,000 rows it would be 1.095


def test_a_model_that_scales_for_rows_by_itself_has_no_curvature_in_blocks() -> None:
    rows = stream(batches(torch.randn(400)))
    with pytest.raises(ValueError, match=r"^svi: the curvature at the mode needs all rows, and plate 'rows' of the"):
        svi(lambda rows: subsampled(rows, 4000), guides.laplace, rows, batch_size=40, num_steps=10, **QUIET)


COUNTS = mixture.simulate(300, num_components=2, num_features=4, seed=2)[0]
ROWS = gmm.simulate(300, num_components=2, num_features=3, seed=3)[0]
FACTORS = ppca.simulate(300, latent_dim=2, num_features=5, seed=4)[0]


@pytest.mark.parametrize(
    ("method", "steps", "x"),
    [
        *((em, gmm.em_steps(2, covariance=form), ROWS) for form in ("full", "tied", "diagonal", "isotropic")),
        (em, gmm.em_steps(2, map=True), ROWS),
        (em, mixture.em_steps(2), COUNTS),
        (em, mixture.em_steps(2, family="multinomial", map=True), COUNTS),
        (em, ppca.em_steps(2), FACTORS),
        (em, factor_analysis.em_steps(2, map=True), FACTORS),
        (cavi, gmm.cavi_steps(2), ROWS),
        (cavi, mixture.cavi_steps(2), COUNTS),
    ],
)
def test_em_and_cavi_find_in_blocks_what_they_find_in_memory(
    method: Callable, steps: Any, x: torch.Tensor, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", x.numpy())
    how = {"num_restarts": 3, "num_steps": 400}
    whole = method(steps, x, **how).info
    for source in (stream(batches(x, size=37)), np.load(tmp_path / "x.npy", mmap_mode="r")):
        found = method(steps, source, **how).info
        assert float(found.objective[-1]) == pytest.approx(float(whole.objective[-1]), rel=1e-9)
        assert found.streamed["rows"] == 300
        assert whole.streamed is None


def test_sparse_counts_are_read_in_dense_blocks() -> None:
    counts = sparse.csr_array(COUNTS.numpy())
    whole, found = (em(mixture.em_steps(2), value, num_restarts=2).info for value in (COUNTS, counts))
    assert found.log_likelihood == pytest.approx(whole.log_likelihood, rel=1e-9)
    assert found.streamed is not None


def test_what_blocks_cannot_be_used_for_is_said() -> None:
    with pytest.raises(ValueError, match="nuts: all rows are needed at once; in blocks they are read by svi, em"):
        nuts(linear.model, stream(X))
    with pytest.raises(ValueError, match="cavi: these steps need all rows at once"):
        cavi(linear_model.cavi_steps(), stream((X, X[:, 0])))
    with pytest.raises(ValueError, match="em: the steps read one matrix in blocks, and a batch has 2 parts"):
        em(gmm.em_steps(2), stream((X, X)))
    with pytest.raises(ValueError, match="svi: data read in blocks need a batch_size"):
        svi(linear.model, guides.mean_field, stream((X, X[:, 0])), **QUIET)
    with pytest.raises(ValueError, match="svi: batch_size must lie between 1 and the number of rows, 230; got 231"):
        svi(linear.model, guides.mean_field, stream((X, X[:, 0])), batch_size=231, **QUIET)
    with pytest.raises(ValueError, match="give a stream of tuples, and no more"):
        svi(linear.model, guides.mean_field, stream(X), X[:, 0], batch_size=23, **QUIET)
    with pytest.raises(ValueError, match="gmm: x is nan in row 5, column 1, and finite numbers are needed"):
        em(
            gmm.em_steps(2),
            stream(X.index_put((torch.tensor([5]), torch.tensor([1])), torch.tensor(torch.nan).double())),
        )
    with pytest.raises(ValueError, match="gmm: missing values need all rows in memory"):
        em(gmm.em_steps(2, missing=True), stream(X))
    with pytest.raises(ValueError, match="factor_analysis: column 2 is constant"):
        em(factor_analysis.em_steps(1), stream(torch.cat([X[:, :2], torch.full((230, 1), 0.1).double()], 1)))
