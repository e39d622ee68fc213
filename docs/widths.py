"""Find pages that are wider than a telephone, in headless Chromium: ``python docs/widths.py FOLDER [WIDTH]``.

It says how wide each page of the folder is that has to be scrolled sideways at this width, 390 by default.
"""

import html
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or "chromium"
SCRIPT = """
const found = {};
async function measure(page) {
  const frame = document.createElement("iframe");
  frame.style = "width: WIDTHpx; height: 800px; border: 0";
  frame.src = page;
  document.body.append(frame);
  await new Promise((done) => { frame.onload = done; });
  found[page] = frame.contentDocument.documentElement.scrollWidth;
  frame.remove();
}
(async () => {
  for (const page of PAGES) await measure(page);
  document.body.textContent = "WIDTHS" + JSON.stringify(found) + "END";
})();
"""


def widths(folder: Path, width: int = 390) -> dict[str, int]:
    """Return how wide each page of a folder is, in pixels, in a window of this width."""
    pages = [file.relative_to(folder).as_posix() for file in sorted(folder.rglob("*.html"))]
    script = SCRIPT.replace("WIDTH" + "px", f"{width}px").replace("PAGES", json.dumps(pages))
    draft = folder / f".widths-{os.getpid()}.html"
    draft.write_text(f"<!doctype html><body><script>{script}</script></body>", encoding="utf-8")
    try:
        with tempfile.TemporaryDirectory() as profile:
            command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
            command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
            command += ["--allow-file-access-from-files", f"--user-data-dir={profile}", "--virtual-time-budget=60000"]
            page = f"file://{draft.resolve()}"
            ran = subprocess.run([*command, "--dump-dom", page], capture_output=True, text=True, check=True)
    finally:
        draft.unlink()
    found = re.search(r"WIDTHS(\{.*\})END", ran.stdout)
    if found is None:
        raise RuntimeError(f"widths: Chromium has measured nothing: {ran.stderr[-500:]}")
    return json.loads(html.unescape(found[1]))


if __name__ == "__main__":
    limit = int(sys.argv[2]) if len(sys.argv) > 2 else 390
    measured = widths(Path(sys.argv[1]), limit)
    wide = {page: size for page, size in measured.items() if size > limit}
    for page, size in wide.items():
        print(f"{page}: {size} px wide")
    print(f"{len(measured) - len(wide)} of {len(measured)} pages fit into {limit} px")
    sys.exit(bool(wide))
