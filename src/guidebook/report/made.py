"""How a page was made: for its readers in words, and for ``guidebook rerun``."""

import json
import shlex
from collections.abc import Iterable, Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from platform import python_version
from typing import Any

from ..inference.digests import data_sha256

HEADING = "How this page was made"
_PACKAGES = ("guidebook", "pyro-ppl", "torch", "jax", "numpyro")


def made(
    seeds: Iterable[int] = (),
    run: Mapping[str, Any] | None = None,
    data: tuple | None = None,
    *,
    command: str | None = None,
) -> dict[str, str]:
    """Return terms and their words for the foot of a page; what is not known is left out.

    ``run`` is the record of the command that made it; without one, the checksum is that of ``data``.
    """
    now = datetime.now().astimezone()
    if run is not None:
        seeds, command, checksum = [run["seed"]], shlex.join(["guidebook", *run["command"]]), run["data"]["sha256"]
    else:
        checksum = "" if data is None else data_sha256(data)
    found = {
        "Date": f"{now.day} {now:%B %Y, %H:%M %Z}",
        "Versions": ", ".join([*_versions(), f"Python {python_version()}"]),
        "Seed": ", ".join(map(str, sorted(set(seeds)))),
        "Data, SHA-256": checksum,
        "Command": command or "",
    }
    return {term: words for term, words in found.items() if words}


def as_text(run: Mapping[str, Any] | None) -> str | None:
    """Return a run's record as JSON for the page's head, without folders of this machine; None for none."""
    if run is None:
        return None
    code = [{"sha256": each["sha256"]} for each in run["code"]]
    return json.dumps({name: value for name, value in run.items() if name != "directory"} | {"code": code})


def _versions() -> Iterable[str]:
    for package in _PACKAGES:
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:  # jax and numpyro are an extra
            continue
