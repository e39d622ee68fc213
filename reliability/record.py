"""How often what was killed, kept in ``docs/kills.json`` and shown in the table of ``docs/reliability.md``."""

import json
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
HEAD = "| fit or command | kills | times it ran to its end | differences |"


def record(name: str, kills: int, fits: int, differing: list[str], docs: Path = DOCS) -> None:
    """Keep what came of killing a fit or a command, in place of what was kept of it, and renew the table."""
    file, page = docs / "kills.json", docs / "reliability.md"
    results = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    results[name] = {"kills": kills, "fits": fits, "differing": differing}
    file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    old = rf"^{re.escape(HEAD)}.*(?:\n\|.*)*"
    text = re.sub(old, lambda _: table(results), page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    page.write_text(text, encoding="utf-8")


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return the table in Markdown."""
    rows = [
        f"| {name} | {one['kills']} | {one['fits']} | {', '.join(one['differing']) or 'none'} |"
        for name, one in results.items()
    ]
    return "\n".join([HEAD, "|---|---|---|---|", *rows])
