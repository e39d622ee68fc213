"""Topic models on Reuters: time and memory to scikit-learn's held-out perplexity, and Gibbs tokens a second."""

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
from guidebook.inference import cavi, gibbs
from guidebook.models import lda

from .measure import Record, in_process, in_turn, peak_memory, record, seconds

TOPICS, ALPHA, ETA = 20, 0.1, 0.01
TRAINING = 316  # of 395 documents
MANY_TOPICS, GIBBS_SWEEPS = 200, 200
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
    """Tokens a second of sweeps, ours with what `gibbs` does in one: a copy of the state, both tables counted anew."""
    x = datasets.load("reuters").x
    tokens = float(x.sum())
    for topics, chains in ((TOPICS, 1), (TOPICS, 4), (MANY_TOPICS, 1), (MANY_TOPICS, 4)):
        package, tomoto = _lda_package(x, topics), _tomotopy(x, topics)
        steps = lda.gibbs_steps(topics, alpha=ALPHA, eta=ETA, collapsed=True)
        data = steps.prepare(x.double())
        torch.manual_seed(0)
        state: dict[str, Any] = {"now": steps.init(chains, *data)}

        def sweep(kept: bool = False, steps: Any = steps, state: dict[str, Any] = state, data: tuple = data) -> None:
            for conditional in steps.conditionals:
                state["now"] = state["now"] | conditional(state["now"], *data)
            if kept:
                steps.draw(state["now"], *data)

        def five(sweep: Any = sweep) -> None:
            for kept in (False, False, False, False, True):
                sweep(kept)

        actions = (
            sweep,
            five,
            partial(package._sample_topics, package._rands),
            partial(tomoto.train, 1, workers=1),
        )
        for action in actions:
            action()
        own, kept, *theirs = in_turn(repeats, *(partial(seconds, action) for action in actions))
        name = f"Gibbs sweep, Reuters, K = {topics}, {chains} chain{'s' * (chains > 1)}"
        said = f"{tokens:,.0f} tokens a chain, drawn one at a time by both; one thread; chains of ours in turn"
        speeds = [[1e-6 * tokens / value for value in taken] for taken in theirs]
        line = partial(record, "lda", unit="M tokens/s", higher=True)
        for peer, speed in zip(("lda", "tomotopy"), speeds, strict=True):
            mine = [1e-6 * chains * tokens / value for value in own]
            yield line(name=name, peer=peer, ours=mine, theirs=speed, asked=1.0, what=said)
        yield line(
            name=f"{name}, every fifth kept",
            peer="tomotopy",
            ours=[5e-6 * chains * tokens / value for value in kept],
            theirs=speeds[1],
            what=f"{said}; ours draws topics and weights from their Dirichlets after every fifth sweep, the peer never",
        )
    yield _same_topics(2 if repeats < 9 else 5)


def _same_topics(splits: int) -> Record:
    """Held-out perplexity after the same number of sweeps, over the words of the training documents."""
    found: tuple[list[float], list[float]] = ([], [])
    for split in range(splits):
        train, test = documents(split)
        used = train.sum(0) > 0
        train, test = train[:, used].double(), test[:, used].double()
        posterior = gibbs(
            lda.gibbs_steps(TOPICS, alpha=ALPHA, eta=ETA, collapsed=True),
            train,
            num_draws=1,
            num_warmup=GIBBS_SWEEPS - 1,
            num_chains=1,
            seed=split,
            progress=False,
        )
        assert posterior.info.state is not None
        found[0].append(perplexity(posterior.info.state["topic_word_counts"].double() + ETA, test))
        peer = _tomotopy(train, TOPICS, seed=split)
        peer.train(GIBBS_SWEEPS, workers=1)
        words = torch.zeros(TOPICS, train.shape[1], dtype=torch.float64)
        order = torch.tensor([int(word) for word in peer.used_vocabs])
        words[:, order] = torch.tensor([peer.get_topic_word_dist(k) for k in range(TOPICS)], dtype=torch.float64)
        found[1].append(perplexity(words, test))
    return record(
        "lda",
        f"Gibbs, Reuters, held-out perplexity after {GIBBS_SWEEPS} sweeps",
        "tomotopy",
        *found,
        "a token",
        share=True,
        asked=1.02,
        what=f"{splits} splits of documents, {TRAINING} for training; K = {TOPICS}, one chain, its last topics",
    )


def _lda_package(x: Tensor, topics: int) -> Any:
    import lda as package

    logging.getLogger("lda").setLevel(logging.WARNING)
    sampler = package.LDA(n_topics=topics, n_iter=1, alpha=ALPHA, eta=ETA, random_state=0)
    sampler._initialize(x.numpy().astype("int64"))
    return sampler


def _tomotopy(x: Tensor, topics: int, seed: int = 0) -> Any:
    import tomotopy

    sampler = tomotopy.LDAModel(k=topics, alpha=ALPHA, eta=ETA, seed=seed)
    for row in x.long():
        words = row.nonzero()[:, 0]
        sampler.add_doc([str(int(word)) for word in words.repeat_interleave(row[words])])
    sampler.burn_in = 0
    sampler.optim_interval = 0
    sampler.train(0)
    return sampler
