"""Latent Dirichlet allocation: every word of a document comes from one of K topics, with the document's own weights.

    topic_words[k]   ~ Dirichlet(eta, …, eta)             (over the V words of the vocabulary)
    topic_weights[n] ~ Dirichlet(alpha, …, alpha)         (over the K topics)
    z[t]             ~ Categorical(topic_weights[n])      for each token t of document n
    w[t]             ~ Categorical(topic_words[z[t]])

`model` has z summed out and sees a document as counts x[n] of its words; `latent_model` has a z for every token.
The density of the counts is that of the tokens in one order, Σ_v x[n, v] log Σ_k topic_weights[n, k] topic_words[k, v].
The multinomial coefficient is left out: it is a constant of the data, and without it both models, all bounds and the
sum over assignments of tokens to topics refer to the same evidence.

======  =================  =======  ====================================================
symbol  site               shape    support
======  =================  =======  ====================================================
φ       ``topic_words``    (k, v)   one simplex per topic
θ       ``topic_weights``  (n, k)   one simplex per document
z       ``z``              (t)      {0, …, k - 1}; only in `latent_model`
w       ``w``              (t)      {0, …, v - 1}, observed; only in `latent_model`
x       ``x``              (n, v)   whole numbers from zero up
======  =================  =======  ====================================================

Data are a tensor of counts, dense or sparse; `as_counts` makes one from a NumPy array or a SciPy sparse matrix, and
every function here except `model` calls it. Cost is proportional to the number of nonzero counts. Concentrations well
below one put draws near the edge of the simplex: fit in float64.

References
----------
1. Blei, Ng and Jordan (2003), Latent Dirichlet allocation, JMLR 3: the model, coordinate ascent.
2. Griffiths and Steyvers (2004), Finding scientific topics, PNAS 101: log p(w, z) with θ and φ integrated out.
3. Hoffman, Blei and Bach (2010), Online learning for latent Dirichlet allocation, NeurIPS: Dirichlet q over topics.
4. Arthur and Vassilvitskii (2007), k-means++: the advantages of careful seeding, SODA: where ascent starts.
5. Wallach, Murray, Salakhutdinov and Mimno (2009), Evaluation methods for topic models, ICML: document completion.
"""

from .cavi import Expectations, cavi_steps, start
from .corpus import Corpus
from .distributions import BagOfWords
from .exact import log_evidence, log_joint_collapsed, log_likelihood
from .gibbs import gibbs_steps
from .heldout import completion, perplexity, split_tokens, transform
from .identify import identify, overview, topics
from .inputs import as_counts, check_counts
from .model import latent_model, model, posterior_predictive, simulate
from .online import online_steps, online_update

__all__ = [
    "BagOfWords",
    "Corpus",
    "Expectations",
    "as_counts",
    "cavi_steps",
    "check_counts",
    "completion",
    "gibbs_steps",
    "identify",
    "latent_model",
    "log_evidence",
    "log_joint_collapsed",
    "log_likelihood",
    "model",
    "online_steps",
    "online_update",
    "overview",
    "perplexity",
    "posterior_predictive",
    "simulate",
    "split_tokens",
    "start",
    "topics",
    "transform",
]
