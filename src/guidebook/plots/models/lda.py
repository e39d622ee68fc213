"""Topic models: the most probable words of every topic."""

from collections.abc import Sequence

from torch import Tensor

from ...inference.compare import Comparison
from ...models import lda
from ..section import Section, Table
from .bands import identified


def sections(comparison: Comparison, x: Tensor | None, columns: Sequence[str] | None) -> list[Section]:
    """List the topics' words, all posteriors side by side, in the first one's order."""
    identified_draws = identified(comparison.posteriors, ["topic_words"], lda.identify)
    found = {name: draws["topic_words"].mean((0, 1)) for name, draws in identified_draws}
    if not found:
        return []
    words = columns or [f"word {i}" for i in range(next(iter(found.values())).shape[-1])]
    best = {name: lda.topics({"topic_words": mean}, words, 8) for name, mean in found.items()}
    rows = [[str(k), *(", ".join(lists[k]) for lists in best.values())] for k in range(len(next(iter(best.values()))))]
    text = "The most probable words of each topic at the posterior mean, most probable first. "
    if len(best) > 1:
        text += "Each row holds the topics of all methods that are closest to the reference's. "
    text += "The numbers are arbitrary."
    return [Section("Topics", text, tables=[Table(["topic", *best], rows)], wide=True)]
