"""The README's Python runs as it stands, and comes to what it says."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # what mean-field says of itself
def test_a_model_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    scope: dict = {"__name__": "readme"}
    for snippet in SNIPPETS[:2]:
        exec(compile(snippet, "README", "exec"), scope)
    compared, checked = capsys.readouterr().out.split("worst quantity", 1)
    assert "nuts is the reference" in compared
    assert "svi:mean_field is bad" in compared
    assert "svi:mean_field is bad" in checked
    assert scope["posterior"].info.judgement == "good"
    assert scope["posterior"].info.message in checked


@pytest.mark.slow
def test_segments_and_evidence(capsys: pytest.CaptureFixture[str]) -> None:
    scope: dict = {"__name__": "readme"}
    for snippet in SNIPPETS[2:]:
        exec(compile(snippet, "README", "exec"), scope)
    assert scope["segments"].shape == (500, 4)
    value = re.search(r"log p\(x\) = (-[\d.]+) ± ([\d.]+) nats by bridge; no warnings", capsys.readouterr().out)
    assert value is not None
    assert abs(float(value[1]) + 55.224) < 4 * max(float(value[2]), 0.01)  # quadrature and long runs
