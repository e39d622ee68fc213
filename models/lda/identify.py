"""Topics relabelled into one order, and quantities that do not depend on their order."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .._shared.matching import Sites, match

_DRAWS = 64  # compared at once


def identify(draws: Sites, anchor: Sites | None = None) -> Sites:
    """Return the sites with the topics of all draws in one order, by the Hellinger distance between topics.

    Parameters
    ----------
    draws : dict
        ``topic_words`` (chain, draw, k, v) and, optionally, ``topic_weights`` (chain, draw, n, k).
    anchor : dict, optional
        The result of an earlier call, whose order to use.
    """
    return _topics_first(match(_topics_first(draws), None if anchor is None else _topics_first(anchor), _distance))


def overview(draws: Sites, anchor: Sites | None = None, *, words: Tensor) -> Sites:
    """Summarise each topic by a few quantities, since a whole vocabulary would be too many to compare.

    Parameters
    ----------
    draws, anchor : dict
        As for `identify`.
    words : Tensor of int, shape (w,)
        Columns of the words to compare, such as the most frequent ones.

    Returns
    -------
    dict
        ``share`` (chain, draw, k): weight of each topic, averaged over documents. ``topic_words`` (chain, draw, k, w):
        probabilities of these words among themselves, and 0 for words whose probability in the anchor's topic (without
        an anchor, in these draws) is below 1 / w: their posterior sd is close to zero, so a shift in units of it says
        nothing about the topic. Topics are matched by all of these words.
    """
    found = draws["topic_words"][..., words]
    found = {"topic_words": found / found.sum(-1, keepdim=True)}
    if "topic_weights" in draws:
        found["topic_weights"] = draws["topic_weights"].mean(-2, keepdim=True)
    found = identify(found, None if anchor is None else {"topic_words": anchor["topic_words"]})
    usual = (found if anchor is None else anchor)["topic_words"].mean((0, 1))
    found["topic_words"] = found["topic_words"] * (usual >= 1 / len(words))
    share = {"share": found.pop("topic_weights").squeeze(-2)} if "topic_weights" in found else {}
    return share | found


def topics(sites: Sites, vocabulary: Sequence[str], top_words: int = 10) -> list[list[str]]:
    """Return the most probable words of each topic, most probable first.

    Parameters
    ----------
    sites : dict
        ``topic_words``: a point (k, v), or draws (…, k, v), which are relabelled and averaged.
    vocabulary : sequence of str, length v
    top_words : int

    Raises
    ------
    ValueError
        If the vocabulary does not have v words.
    """
    words = sites["topic_words"]
    if len(vocabulary) != words.shape[-1]:
        raise ValueError(f"lda: the topics are over {words.shape[-1]} words, the vocabulary has {len(vocabulary)}")
    if words.dim() > 2:
        words = identify({"topic_words": words.reshape(1, -1, *words.shape[-2:])})["topic_words"].mean((0, 1))
    best = words.topk(min(top_words, words.shape[-1])).indices
    return [[str(vocabulary[index]) for index in row] for row in best.tolist()]


def _topics_first(sites: Sites) -> Sites:
    """Move the topics of the weights to the dimension where `match` expects them, or back."""
    found = {"topic_words": sites["topic_words"]}
    return found | ({"topic_weights": sites["topic_weights"].mT} if "topic_weights" in sites else {})


def _distance(flat: Sites, target: Sites) -> Tensor:
    """Return -Σ_v √(p_v q_v) between topics, (s, k, k)."""
    root = target["topic_words"].sqrt().mT
    return torch.cat([-(part.sqrt() @ root) for part in flat["topic_words"].split(_DRAWS)])
