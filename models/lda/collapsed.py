"""The collapsed Gibbs sampler, one token at a time, in C++ (``collapsed.cpp``)."""

import ctypes
from ctypes import POINTER, Structure, c_float, c_int, c_int32, c_int64, c_void_p
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from .._shared.native import CannotCompileError, load_cpp
from .._shared.steps import Params
from .corpus import Corpus

_FEW, _ROOM = 64, (8, 32)  # rows of the tables have room for a multiple of so many topics, if they are few or not
_MOST_TOKENS = 2**31 - 1
_LEAST = 1e3 * torch.finfo(torch.float32).tiny  # of a topic's weight: the sampler computes in float32


class _Corpus(Structure):
    _fields_ = (
        ("documents", c_int64),
        ("entries", c_int64),
        ("starts", c_void_p),
        ("word", c_void_p),
        ("counts", c_void_p),
        ("words", c_int32),
    )


class _Prior(Structure):
    _fields_ = (("alpha", c_float), ("eta", c_float))


def sweep(topic: Tensor, corpus: Corpus, num_topics: int, alpha: float, eta: float) -> Params:
    """Draw every token's topic in turn, given those of all others: Griffiths and Steyvers (2004), eq. 5.

    Parameters
    ----------
    topic : Tensor, shape (chain, t)
        The tokens' topics, in the order of ``corpus.tokens``.

    Returns
    -------
    dict
        The new ``z`` and its tables, all 32-bit integers: views of tables by word, with some room to spare.
    """
    topic = topic.to(torch.int32, copy=True).contiguous()
    chains, tokens = topic.shape
    room = _ROOM[num_topics > _FEW]
    stride = -(-num_topics // room) * room
    of_document = topic.new_empty(chains, corpus.num_rows, stride)
    of_word = topic.new_empty(chains, corpus.num_features, stride)
    arrays = corpus.document_starts.long(), corpus.word.int(), corpus.counts.long()
    places = (array.data_ptr() for array in arrays)
    words = _Corpus(corpus.num_rows, len(corpus.counts), *places, corpus.num_features)
    seeds = torch.randint(2**63 - 1, (chains,))
    tables = (table.data_ptr() for table in (topic, of_document, of_word, seeds))
    library = _library()
    if isinstance(library, str):
        raise RuntimeError(f"lda: {library}")
    library.sweep_chains(
        words, tokens, *tables, chains, num_topics, stride, _Prior(alpha, eta), torch.get_num_threads()
    )
    return {
        "z": topic,
        "document_topics": of_document[..., :num_topics],
        "topic_word_counts": of_word[..., :num_topics].mT,
    }


def obstacle(corpus: Corpus, num_topics: int, alpha: float, eta: float) -> str:
    """Return why `sweep` cannot be used, as a clause; empty if it can."""
    tokens = float(corpus.counts.sum())
    if corpus.device.type != "cpu":
        return f"the data are on {corpus.device}"
    if tokens > _MOST_TOKENS:
        return f"{tokens:g} tokens are more than it counts"
    if alpha * min(eta, 1) < _LEAST * (tokens + corpus.num_features * eta):
        return f"alpha={alpha:g} and eta={eta:g} are too small for the numbers it computes in"
    library = _library()
    return library if isinstance(library, str) else ""


@cache
def _library() -> ctypes.CDLL | str:
    """Return the compiled sampler, or why there is none, which is asked once in a process."""
    try:
        library = load_cpp(Path(__file__).with_suffix(".cpp"))
    except CannotCompileError as error:
        return str(error)
    library.sweep_chains.restype = None
    library.sweep_chains.argtypes = [
        POINTER(_Corpus),
        c_int64,
        *[c_void_p] * 4,
        *[c_int] * 3,
        POINTER(_Prior),
        c_int,
    ]
    return library
