"""The sentence over a comparison, and its table in words."""

import re
from dataclasses import replace

import pytest
import torch
from rich.cells import cell_len
from zoo.posteriors import by_em, by_nuts, by_svi

from guidebook.inference import Posterior, compare
from guidebook.inference.compare import Comparison
from guidebook.inference.headline import in_seconds
from guidebook.inference.verdict import Verdict
from guidebook.inference.words import decimals_apart


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _fit(shift: float = 0.0, ratio: float = 1.0, seconds: float = 8.0, **fields) -> Posterior:
    draws = torch.randn(1, 1000, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return by_svi({"w": shift + ratio * (draws - draws.mean()) / draws.std()}, seconds=seconds, **fields)


def _compared(divergences: int = 0, **fits: Posterior) -> Comparison:
    draws = torch.randn(1000, dtype=torch.float64)
    reference = {"w": ((draws - draws.mean()) / draws.std()).reshape(4, 250)}
    return compare(by_nuts(reference, divergences, seconds=53.0), *fits.values(), names=["nuts", *fits])


def _point() -> Posterior:
    return by_em({"w": torch.zeros(1, 1, dtype=torch.float64)})


@pytest.mark.parametrize(
    ("fits", "words"),
    [
        (
            {"a": _fit(seconds=8.2), "b": _fit(seconds=3.0, shift=1.0)},
            "a gives nuts's answer in 8.2 s instead of 53 s.",
        ),
        ({"a": _fit(seconds=9.0), "b": _fit(seconds=3.0)}, "b gives nuts's answer in 3 s instead of 53 s."),
        ({"a": _fit(seconds=2000.0)}, "a gives nuts's answer in 2,000 s, where nuts takes 53 s."),
        (
            {"a": _fit(shift=0.2), "b": _fit(shift=1.0)},
            "a comes near nuts's answer in 8 s instead of 53 s: it is usable, not good.",
        ),
        ({"a": _fit(shift=1.0)}, "a does not give nuts's answer."),
        ({"a": _fit(ratio=0.5), "b": _fit(shift=1.0), "em": _point()}, "a and b do not give nuts's answer."),
        ({"em": _point()}, "em is a point: only nuts has a spread."),
        ({"a": by_svi({"w": torch.randn(1, 5).double()})}, "a is not judged beside nuts."),
    ],
)
def test_it_names_the_quickest_answer_that_is_as_good(fits: dict[str, Posterior], words: str) -> None:
    assert _compared(**fits).headline == words


def test_seconds_that_are_not_known_are_not_told() -> None:
    """Draws from elsewhere have none; they are not the quickest, either."""
    draws, unknown = torch.randn(4, 250, dtype=torch.float64), float("nan")
    draws = (draws - draws.mean()) / draws.std()
    from_elsewhere = compare(by_nuts({"w": draws}, seconds=unknown), _fit(seconds=3.0), names=["there", "a"])
    assert from_elsewhere.headline == "a gives there's answer in 3 s."
    assert _compared(b=_fit(seconds=unknown), a=_fit(seconds=60.0)).headline.startswith(
        "a gives nuts's answer in 60 s,"
    )
    assert _compared(b=_fit(seconds=unknown)).headline == "b gives nuts's answer."
    alone = _compared(divergences=2, a=_fit(seconds=unknown))
    good = replace(alone, verdicts=alone.verdicts | {"a": Verdict("good", "")})
    assert good.headline == "a is good, by short chains from its own draws."


def test_a_reference_that_is_not_fit_gives_no_answer() -> None:
    assert _compared(divergences=2, a=_fit()).headline == "nuts is not fit to judge the others."


@pytest.mark.parametrize(
    ("judgements", "words"),
    [
        ({"a": "good", "b": "bad"}, "a is good after 8 s, by short chains from its own draws."),
        ({"a": "bad", "b": "usable"}, "b is usable after 8 s, not good, by short chains from its own draws."),
        ({"a": "bad", "b": "not judged"}, "a is bad, by short chains from its own draws."),
        ({"a": "bad", "b": "bad"}, "a and b are bad, by short chains from their own draws."),
    ],
)
def test_fits_judged_without_the_reference_have_the_answer(judgements: dict[str, str], words: str) -> None:
    alone = _compared(divergences=2, **{name: _fit() for name in judgements})
    verdicts = {name: Verdict(judgement, "") for name, judgement in judgements.items()}
    assert replace(alone, verdicts=alone.verdicts | verdicts).headline == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.0, "less than 0.01 s"), (0.123, "0.12 s"), (53.1, "53 s"), (1234.5, "1,234 s")]
)
def test_seconds_have_two_digits(seconds: float, words: str) -> None:
    assert in_seconds(seconds) == words


@pytest.mark.parametrize(
    ("values", "decimals"),
    [
        ([-55.5, -67.4], 1),
        ([-55.51, -55.54, None], 2),
        ([-55.512, -55.514, float("nan")], 3),
        ([-55.51201, -55.51202], 3),  # noise
        ([-55.5, -55.5], 1),
        ([], 1),
    ],
)
def test_elbos_have_as_many_decimals_as_tell_them_apart(values: list, decimals: int) -> None:
    assert decimals_apart(values) == decimals


def test_printed_columns_are_in_words_and_in_line() -> None:
    comparison = _compared(a=_fit(elbo=-55.51), svi=_fit(shift=0.3, elbo=-55.54), 分布=_point())
    *_, head, nuts, a, svi, point = str(comparison).splitlines()
    assert re.split("  +", head) == [
        "method", "seconds", "ELBO, nats", "k̂", "worst quantity", "mean shift, sd", "sd ratio", "W₁, sd"
    ]  # fmt: skip
    assert "−55.51" in a
    assert "−55.54" in svi
    assert "_" not in head + nuts + a + svi + point
    end = cell_len(head[: head.index(", nats") + len(", nats")])
    assert cell_len(a[: a.index("−55.51") + len("−55.51")]) == end
    assert cell_len(nuts[: nuts.index("–") + 1]) == end
    k_hat = cell_len(head[: head.index("k̂") + 2])
    assert cell_len(a[: a.index("0.300") + 5]) == k_hat  # k̂ is two characters in one place
    assert cell_len(point[: point.index("0.100") + 5]) == cell_len(a[: a.index("8.00") + 4])  # so is each of 分布


def test_names_are_escaped_in_a_notebook() -> None:
    shown = _compared(**{"<b>": _fit()})._repr_html_()
    assert "&lt;b&gt; gives nuts&#x27;s answer" in shown
    assert "<b>" not in shown
    assert "<th>mean shift, sd</th>" in shown
