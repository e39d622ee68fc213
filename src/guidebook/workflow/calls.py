"""Advice in calls of Python functions, as commands to type."""

import re

from guidebook.catalog import METHODS, Row
from guidebook.inference.advice import MOVED
from guidebook.inference.mcmc.beside_chains import IMPROVED

_CALL = re.compile(r"\b([a-z_]+)\((?:model|latent_model|steps)(?:, (\w+))?, …((?:, \w+=[\w.]+)*)\)")
_COUNTS = {f"num_{name}": f"--{name}" for name in ("steps", "draws", "warmup", "chains")}
_MOVED = {
    MOVED: "its draws as guidebook check … --out moves them",
    IMPROVED: "its moved draws, which guidebook check --out saves, or guidebook fit",
}
_START = "init=posterior"  # which no option of a command is: the method then finds its own start


def with_commands(sentence: str, row: Row) -> str:
    """Return a sentence with a command for each call that one can make, such as ``gibbs(steps, …, num_draws=100)``.

    In a command "…" stands for the options of data and model that were given.
    """
    for call, command in _MOVED.items():
        sentence = sentence.replace(call, command)
    return _CALL.sub(lambda call: _command(call, row) or call[0], sentence)


def _command(call: re.Match[str], row: Row) -> str:
    """Return the command of a call; empty if there is none."""
    method, guide, options = call.groups(default="")
    if method == "fit" and not options:
        return f"guidebook fit {row.name} …"
    if method not in METHODS or method in row.unavailable or (guide and guide not in row.guides):
        return ""
    words = ["guidebook run", row.name, "…", f"--method {method}{':' if guide else ''}{guide}"]
    for option in filter(None, options.split(", ")):
        name, _, value = option.partition("=")
        if name in METHODS[method].counts:
            words.append(f"{_COUNTS[name]} {value}")
        elif name in METHODS[method].options:
            words.append(f"--set {option}")
        elif option != _START:
            return ""
    return " ".join(words)
