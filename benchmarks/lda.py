"""Topic models on Reuters, K = 20: time and memory to scikit-learn's held-out perplexity, and Gibbs tokens a second."""

import logging
import time
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import LatentDirichletAllocation
from torch import Tensor

from guidebook import datasets
from guidebook.inference import cavi
from guidebook.models import lda

from .measure import Record, in_process, in_turn, peak_memory, record, seconds

TOPICS, ALPHA, ETA = 20, 0.1, 0.01
TRAINING = 316  # of 395 documents
SWEEPS = (1, 2, 5, 10, 20, 40, 80, 160, 320)


def rows(quick: bool) -> Iterator[Record]:
    warnings.simplefilter("ignore")
    for iterations in (10,) if quick else (10, 50):
        yield from _held_out(iterations, 2 if quick else 5)
    yield from _gibbs(3 if quick else 9)


def _held_out(iterations: int, splits: int) -> Iterator[Record]:
    taken: list[float] = []
    theirs: list[float] = []
    notes = []
    for split in range(splits):
        train, test = documents(split)
        begin = time.perf_counter()
        peer = sklearns(train, iterations, split)
        theirs.append(time.perf_counter() - begin)
        target = perplexity(torch.tensor(peer.components_), test)
        shortest, sweeps, reached = _until(target, train, test, split)
        taken.append(shortest)
        notes.append((target, reached, sweeps))
    target, reached, sweeps = np.median(np.array(notes), 0)
    line = partial(record, "lda", peer="LatentDirichletAllocation", share=True)
    yield line(
        name=f"LDA on Reuters to held-out perplexity, {iterations} iterations",
        ours=taken,
        theirs=theirs,
        unit="s",
        asked=0.5,
        what=f"{splits} splits of documents, {TRAINING} for training; scikit-learn's {target:.0f} after {iterations} "
        f"iterations, ours {reached:.0f} after {sweeps:.0f} sweeps (medians), one start, α={ALPHA}, η={ETA}",
    )
    mine, its = (
        [in_process("lda:memory", side=side, iterations=iterations, sweeps=int(sweeps))["mib"] for _ in range(splits)]
        for side in ("ours", "theirs")
    )
    yield line(
        name=f"LDA on Reuters, memory of the same, {iterations} iterations",
        ours=mine,
        theirs=its,
        unit="MiB",
        asked=1.0,
        what="peak in a process of its own above what it held with libraries and counts (dense, 11 MB) loaded",
    )


def _until(target: float, train: Tensor, test: Tensor, seed: int) -> tuple[float, int, float]:
    """Seconds of the shortest fit among `SWEEPS` that reaches a perplexity; infinite where none does."""
    reached = float("inf")
    for sweeps in SWEEPS:
        begin = time.perf_counter()
        concentration = ours(train.clone(), sweeps, seed)
        taken = time.perf_counter() - begin
        reached = perplexity(concentration, test)
        if reached <= target:
            return taken, sweeps, reached
    return float("inf"), SWEEPS[-1], reached


def documents(split: int) -> tuple[Tensor, Tensor]:
    x = datasets.load("reuters").x
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(split))
    return x[order[:TRAINING]].clone(), x[order[TRAINING:]].clone()


def ours(train: Tensor, sweeps: int, seed: int) -> Tensor:
    steps = lda.cavi_steps(TOPICS, alpha=ALPHA, eta=ETA)
    found = cavi(steps, train, num_steps=sweeps, num_restarts=1, num_draws=1, seed=seed)
    return found.params["topic_words.concentration"]


def sklearns(train: Tensor, iterations: int, seed: int) -> LatentDirichletAllocation:
    return LatentDirichletAllocation(
        TOPICS, doc_topic_prior=ALPHA, topic_word_prior=ETA, max_iter=iterations, random_state=seed
    ).fit(train.numpy())


def perplexity(concentration: Tensor, test: Tensor) -> float:
    """Of the held-out documents, by our measure for both."""
    return float(lda.perplexity(concentration / concentration.sum(-1, keepdim=True), test, alpha=ALPHA))


def memory(side: str, iterations: int, sweeps: int) -> dict[str, float]:
    train, _ = documents(0)
    few = train[:20].clone()
    if side == "ours":
        ours(few, 1, 0)
    else:
        sklearns(few, 1, 0)
    with peak_memory() as peak:
        if side == "ours":
            ours(train, sweeps, 0)
        else:
            sklearns(train, iterations, 0)
    return {"mib": peak.mib}


def _gibbs(repeats: int) -> Iterator[Record]:
    x = datasets.load("reuters").x
    tokens = float(x.sum())
    package, tomoto = _lda_package(x), _tomotopy(x)
    for chains in (1, 4):
        steps = lda.gibbs_steps(TOPICS, alpha=ALPHA, eta=ETA)
        data = steps.prepare(x)
        torch.manual_seed(0)
        state: dict[str, Any] = {"now": steps.init(chains, *data)}

        def sweep(steps: Any = steps, state: dict[str, Any] = state, data: tuple = data) -> None:
            for conditional in steps.conditionals:
                state["now"] = state["now"] | conditional(state["now"], *data)

        actions = (sweep, lambda: package._sample_topics(package._rands), lambda: tomoto.train(1, workers=1))
        for action in actions:
            action()
        times = in_turn(repeats, *(lambda action=action: seconds(action) for action in actions))
        mine = [1e-6 * chains * tokens / value for value in times[0]]
        said = f"{tokens:,.0f} tokens, {chains} chain{'s' * (chains > 1)} of ours; ours draws blocks, "
        for peer, taken in zip(("lda", "tomotopy"), times[1:], strict=True):
            yield record(
                "lda",
                f"Gibbs sweep, Reuters, {chains} chain{'s' * (chains > 1)}",
                peer,
                mine,
                [1e-6 * tokens / value for value in taken],
                "M tokens/s",
                higher=True,
                what=said + "the peer one token at a time, collapsed, which moves further in a sweep; one thread",
            )


def _lda_package(x: Tensor) -> Any:
    import lda as package

    logging.getLogger("lda").setLevel(logging.WARNING)
    sampler = package.LDA(n_topics=TOPICS, n_iter=1, alpha=ALPHA, eta=ETA, random_state=0)
    sampler._initialize(x.numpy().astype("int64"))
    return sampler


def _tomotopy(x: Tensor) -> Any:
    import tomotopy

    sampler = tomotopy.LDAModel(k=TOPICS, alpha=ALPHA, eta=ETA, seed=0)
    for row in x.long():
        words = row.nonzero()[:, 0]
        sampler.add_doc([str(int(word)) for word in words.repeat_interleave(row[words])])
    sampler.burn_in = 0
    sampler.optim_interval = 0
    sampler.train(0)
    return sampler
