"""How the run behind a page can be repeated: for its readers in words, and for ``guidebook rerun``."""

import json
from collections.abc import Mapping
from typing import Any

from ..workflow.record import data_sha256


def facts(run: Mapping[str, Any] | None, data: tuple | None) -> list[tuple[str, str]]:
    """Return terms and words for the head of a page: of a run's record or, without one, of the data alone."""
    if run is None:
        return [] if data is None else [("Data, SHA-256", data_sha256(data))]
    return [
        ("Data, SHA-256", run["data"]["sha256"]),
        ("Seed", str(run["seed"])),
        ("Command", f"guidebook {' '.join(run['command'])}"),
    ]


def as_text(run: Mapping[str, Any] | None) -> str | None:
    """Return a run's record as JSON for the page's head, without folders of this machine; None for none."""
    if run is None:
        return None
    code = [{"sha256": each["sha256"]} for each in run["code"]]
    return json.dumps({name: value for name, value in run.items() if name != "directory"} | {"code": code})
