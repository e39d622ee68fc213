"""How a page was made: date, versions, seed and command."""

from collections.abc import Iterable
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from platform import python_version

HEADING = "How this page was made"
_PACKAGES = ("guidebook", "pyro-ppl", "torch", "jax", "numpyro")


def made(seeds: Iterable[int] = (), command: str | None = None) -> dict[str, str]:
    """Return terms and their words for the foot of a page; what is not known is left out."""
    now = datetime.now().astimezone()
    found = {
        "Date": f"{now.day} {now:%B %Y, %H:%M %Z}",
        "Versions": ", ".join([*_versions(), f"Python {python_version()}"]),
        "Seed": ", ".join(map(str, sorted(set(seeds)))),
        "Command": command or "",
    }
    return {term: words for term, words in found.items() if words}


def _versions() -> Iterable[str]:
    for package in _PACKAGES:
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:  # jax and numpyro are an extra
            continue
