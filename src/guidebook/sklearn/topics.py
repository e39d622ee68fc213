"""Topics of documents, from counts of their words."""

from typing import Any, Self

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, check_non_negative
from torch import Tensor

from guidebook.catalog.outcomes import thinned
from guidebook.inference.traces.isolate import isolated
from guidebook.models import lda

from .fitting import as_tensor, check_counts, named, run, seed_of, validated

TOLERANCE = 1e-3  # nats per document
MOST_DRAWS = 20  # of the topics; documents' weights are inferred anew at each


class LDA(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Latent Dirichlet allocation, as `sklearn.decomposition.LatentDirichletAllocation`.

    Parameters
    ----------
    n_components : int
        Topics.
    doc_topic_prior, topic_word_prior : float, optional
        Concentrations of the priors over a document's topics and a topic's words. Default: 1 / ``n_components``.
    method : str
        "cavi" (coordinate ascent, the batch method of scikit-learn), "gibbs", "svi:encoder", …; see ``guidebook list``.
    tol : float, optional
        Coordinate ascent: distance to the limit, in nats, at which it stops. Default: 1e-3 per document.
    learning_decay, learning_offset, total_samples : float
        Of `partial_fit`: step t has size (offset + t)^-decay, and a batch stands for so many documents.
    n_init : int, optional
        Starts, of which the best wins. Default: 1.
    max_iter, options, random_state
        As for `GaussianMixture`.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features)
        Probabilities of words in each topic: the mean over the posterior's draws, topics matched. Unlike
        scikit-learn's, rows sum to one.
    doc_topic_prior_, topic_word_prior_ : float
    n_batch_iter_ : int
        Batches that `partial_fit` has seen.
    posterior_, converged_, n_iter_, lower_bound_, n_features_in_, feature_names_in_
        As for `GaussianMixture`.
    """

    def __init__(
        self,
        n_components: int = 10,
        *,
        doc_topic_prior: float | None = None,
        topic_word_prior: float | None = None,
        method: str = "cavi",
        tol: float | None = None,
        max_iter: int | None = None,
        n_init: int | None = None,
        learning_decay: float = 0.7,
        learning_offset: float = 10.0,
        total_samples: float = 1e6,
        options: dict[str, Any] | None = None,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.doc_topic_prior = doc_topic_prior
        self.topic_word_prior = topic_word_prior
        self.method = method
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.learning_decay = learning_decay
        self.learning_offset = learning_offset
        self.total_samples = total_samples
        self.options = options
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit to counts of words ``X``, (n_samples, n_features), dense or sparse; ``y`` is not used.

        Raises
        ------
        ValueError
            For an option out of range, or what is no count.
        """
        x = self._validated(X, reset=True)
        self._set_priors()
        options = {"num_topics": int(self.n_components), "alpha": self.doc_topic_prior_, "eta": self.topic_word_prior_}
        defaults = {"num_restarts": 1, "tol": TOLERANCE * x.shape[0]}
        posterior = run(self, "lda", options, x, defaults=defaults)
        self.n_batch_iter_, self._concentration = 0, posterior.params.get("topic_words.concentration")
        if self._concentration is not None:
            self._topics = (self._concentration / self._concentration.sum(-1, keepdim=True))[None]
        else:
            draws = lda.identify({"topic_words": posterior.draws["topic_words"]})
            self._topics = thinned(draws, MOST_DRAWS)["topic_words"]
        self.components_ = self._topics.mean(0).numpy()
        return self

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Go on with a batch of documents, which is then forgotten: online variational Bayes, whatever ``method`` says.

        Hoffman, Blei and Bach (2010). The first batch chooses where topics start, unless there is a fit by coordinate
        ascent to go on from; it should have several documents per topic. ``posterior_`` stays that of `fit`.
        """
        first = getattr(self, "_concentration", None) is None
        x = self._validated(X, reset=first)
        if first:
            self._set_priors()
            self.n_batch_iter_ = 0
            with named("LDA"), isolated(seed_of(self.random_state)):
                start = lda.start(x, int(self.n_components), self.doc_topic_prior_, self.topic_word_prior_)
            self._concentration = start["topic_words.concentration"]
        self.n_batch_iter_ += 1
        assert self._concentration is not None
        with named("LDA"):
            self._concentration = lda.online_update(
                self._concentration,
                x,
                alpha=self.doc_topic_prior_,
                eta=self.topic_word_prior_,
                num_documents=self.total_samples,
                step_size=(self.learning_offset + self.n_batch_iter_) ** -self.learning_decay,
            )
        self._topics = (self._concentration / self._concentration.sum(-1, keepdim=True))[None]
        self.components_ = self._topics[0].numpy()
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the expected weights of each document's topics, shape (n_samples, n_components)."""
        check_is_fitted(self)
        x = self._validated(X, reset=False)
        weights = lda.transform(
            {"topic_words": self._topics}, x, alpha=self.doc_topic_prior_, num_steps=2000, tol=1e-10
        )
        return weights.mean(0).numpy()

    def score(self, X: Any, y: Any = None) -> float:
        """Return the log density of one half of each document's tokens given the other, in nats: higher is better.

        Document completion, `guidebook.models.lda.completion`: unlike a bound, it can be compared between methods.
        """
        return float(self._completion(X)[0].sum())

    def perplexity(self, X: Any) -> float:
        """Return exp(-`score` per token): lower is better."""
        log_density, tokens = self._completion(X)
        return float((-log_density.sum() / tokens.sum()).exp())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.input_tags.categorical = True  # whole numbers; there is no tag for counts
        tags.input_tags.sparse = True
        return tags

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)

    def _set_priors(self) -> None:
        check_counts("LDA", n_components=self.n_components, max_iter=self.max_iter, n_init=self.n_init)
        even = 1 / self.n_components
        self.doc_topic_prior_ = even if self.doc_topic_prior is None else self.doc_topic_prior
        self.topic_word_prior_ = even if self.topic_word_prior is None else self.topic_word_prior

    def _completion(self, X: Any) -> tuple[Tensor, Tensor]:
        check_is_fitted(self)
        x = self._validated(X, reset=False)
        with named("LDA"):
            return lda.completion(self._topics, x, alpha=self.doc_topic_prior_)

    def _validated(self, X: Any, *, reset: bool) -> Tensor:
        x = validated(self, X, reset=reset, accept_sparse="csr")
        check_non_negative(x, "LDA")
        with named("LDA"):
            counts = lda.as_counts(x) if sparse.issparse(x) else as_tensor(x)
            lda.check_counts(counts)
        return counts
