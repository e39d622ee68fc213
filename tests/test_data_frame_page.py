"""The page that leads from a data frame to a report runs as it stands."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "data-frame.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:posterior_predictive. 'age_unobserved' is drawn")  # of the new rows
def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict = {"__name__": "page"}
    for snippet in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(snippet, "docs/data-frame.md", "exec"), scope)
    said = capsys.readouterr().out
    assert " is good: " in said
    assert "elpd −" in said
    level, base = (scope["posterior"].samples[name].mean(0) for name in ("level", "base"))
    slope = scope["posterior"].samples["of_age"].mean()
    assert abs(scope["predicted"][:, 0].mean() - (base + level[2] + slope * (40 - 55))) < 1
    assert scope["posterior"].info.data_sha256
    assert (tmp_path / "report.html").read_text().count("Cork")
