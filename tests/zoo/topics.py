"""Three documents whose posterior is known by enumeration, for tests of topic models."""

from collections.abc import Mapping

import torch
from torch.distributions import Dirichlet

from guidebook.models.lda.inputs import read

Sites = dict[str, torch.Tensor]

# Three documents, 0 0 1 2, 1 2 2 2 and 0 1 1, with two topics and both concentrations 1; by another program.
TINY = torch.tensor([[2.0, 1.0, 1.0], [0.0, 1.0, 3.0], [1.0, 2.0, 0.0]], dtype=torch.float64)
EVIDENCE = -13.026732377415
PAIRS = {(0, 1): 0.747472, (0, 2): 0.610058, (5, 6): 0.784322}
FLAT = {"num_topics": 2, "alpha": 1.0, "eta": 1.0}


def sites_of(rows: int, topics: int, words: int, *lead: int, seed: int = 0) -> Sites:
    torch.manual_seed(seed)
    one = torch.ones((), dtype=torch.float64)
    return {
        "topic_words": Dirichlet(one.expand(words)).sample((*lead, topics)),
        "topic_weights": Dirichlet(one.expand(topics)).sample((*lead, rows)),
    }


def pair_probability(draws: Mapping[str, torch.Tensor], first: int, second: int) -> torch.Tensor:
    """p(z[s] = z[t] | w, sites) of TINY's tokens, (chain, draw): tokens are independent given the sites."""
    document, word = read(TINY).tokens
    shares = [draws["topic_weights"][:, :, document[t]] * draws["topic_words"][..., word[t]] for t in (first, second)]
    first_share, second_share = (s / s.sum(-1, keepdim=True) for s in shares)
    return (first_share * second_share).sum(-1)
