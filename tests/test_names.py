"""Names are checked before torch is imported, by a file that is held to the catalogue."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from guidebook.catalog.write_names import names_json
from guidebook.workflow.names import FILE

MODEL = "def line(t, y=None, *, scale=1.0, **rest): pass\ndef plain(t, *, scale=1.0): pass\n"


def test_the_file_of_names_is_that_of_the_catalogue() -> None:
    assert json.loads(FILE.read_text()) == names_json(), "run python -m guidebook.catalog.write_names"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("names")
    (folder / "mine.py").write_text(MODEL)
    return folder


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("run logitsic", "unknown model 'logitsic': did you mean logistic?"),
        ("run logistic --method vsi", "unknown method 'vsi': did you mean svi?"),
        ("run logistic --guide full", "unknown guide of logistic 'full': did you mean full_rank?"),
        ("run gmm --set num_componets=2", "unknown option of gmm 'num_componets': did you mean num_components"),
        ("run logistic --data irs", "unknown data set 'irs': did you mean iris?"),
        ("run logistic --data none.csv", "no such file: none.csv"),
        ("run logistic --device gpu", "--device must be cpu or cuda"),
        ("fit logistic --set prior_scale=x", "prior_scale must be a number, got 'x'"),
        ("compare gmm --methods nuts,emm", "unknown method 'emm': did you mean em?"),
        ("compare gmm --reference nut", "unknown reference 'nut': did you mean nuts?"),
        ("choose gmm --set num_component=1..3", "unknown option of gmm 'num_component'"),
        ("choose gmm --set num_components=1..3 --method emm", "unknown method 'emm'"),
        ("check logitsic", "unknown model 'logitsic'"),
        ("check .", ". holds no fit: make one with guidebook run --out ."),
        ("predict nowhere --data mine.py", "nowhere holds no fit"),
        ("run mine.py:lin", "mine.py: unknown function 'lin': did you mean line"),
        ("run mine.py:plain --set scal=1", "unknown option of mine.py:plain 'scal': did you mean scale?"),
        ("run mine.py:line --method em", "mine.py:line has no em"),
    ],
)
def test_a_typo_is_refused_without_torch(folder: Path, words: str, sentence: str) -> None:
    code = f"import sys; sys.argv = ['guidebook', *{words.split()}]\nfrom guidebook.cli import main\n"
    code += "try: main()\nexcept SystemExit as stop: assert stop.code == 2\n"
    code += "assert not {'torch', 'pyro', 'numpy', 'pandas'} & set(sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=folder)
    assert ran.returncode == 0, ran.stderr
    assert sentence in ran.stderr
    assert ran.stderr.count("\n") == 1
