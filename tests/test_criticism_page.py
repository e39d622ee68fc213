"""The page on prediction and criticism runs as it stands, and comes to what it says."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "criticism.md").read_text()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # of new groups, and of what ArviZ detects
def test_its_code_runs(capsys: pytest.CaptureFixture[str]) -> None:
    scope: dict = {"__name__": "page"}
    for snippet in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(snippet, "page", "exec"), scope)
    assert scope["replicated"].shape == (4000, 80)
    assert scope["predicted"]["y"].shape == scope["with_new_groups"]["y"].shape == (4000, 3)
    assert scope["with_new_groups"]["level"].shape == (4000, 2)
    assert "stan is the reference" in capsys.readouterr().out
