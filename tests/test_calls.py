"""Advice in calls of Python functions becomes commands that exist."""

import shlex

import pytest

from guidebook.catalog import METHODS, ROWS
from guidebook.inference.advice import BY_DADVI, BY_NUTS, FROM_ITS_DRAWS, MOVED, RICHER_GUIDE, UNTIL_GOOD
from guidebook.workflow.calls import with_commands

LDA, LOGISTIC = ROWS["lda"], ROWS["logistic"]


@pytest.mark.parametrize(
    ("call", "command"),
    [
        ("gibbs(steps, …, num_draws=100)", "guidebook run logistic … --method gibbs --draws 100"),
        (
            "nuts(model, …, num_warmup=200, num_draws=1000)",
            "guidebook run logistic … --method nuts --warmup 200 --draws 1000",
        ),
        ("nuts(model, …, target_accept=0.95)", "guidebook run logistic … --method nuts --set target_accept=0.95"),
        (FROM_ITS_DRAWS, "guidebook run logistic … --method nuts"),
        (
            "svi(model, mean_field, …, num_steps=40)",
            "guidebook run logistic … --method svi:mean_field --steps 40",
        ),
        (
            f"{BY_DADVI}, or {UNTIL_GOOD}",
            "guidebook run logistic … --method dadvi, or guidebook fit logistic …, which ",
        ),
        (MOVED, "its draws as guidebook check … --out moves them"),
    ],
)
def test_a_call_becomes_a_command_with_its_options(call: str, command: str) -> None:
    assert f"Next: {command}" in with_commands(f"It is bad. Next: {call}.", LOGISTIC)


@pytest.mark.parametrize(
    "call",
    [
        RICHER_GUIDE,
        "nuts(model, …, dense_mass=False)",  # no option of a command
        "svi(model, my_guide, …, num_steps=40)",  # no guide of the model
    ],
)
def test_a_call_without_a_command_stays(call: str) -> None:
    assert with_commands(call, LOGISTIC) == call


def test_no_command_is_named_that_the_model_has_not() -> None:
    assert "em" in LDA.unavailable
    assert with_commands("em(steps, …, num_steps=12)", LDA) == "em(steps, …, num_steps=12)"
    assert "nuts" in METHODS
    assert shlex.split(with_commands(BY_NUTS, LDA)) == ["guidebook", "run", "lda", "…", "--method", "nuts"]
