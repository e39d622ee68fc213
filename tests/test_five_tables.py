"""Five tables as people have them, from the command to predictions for new rows, beside answers computed elsewhere."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, softmax
from scipy.stats import multivariate_normal, poisson
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score

from guidebook.cli import app


def guidebook(*words: object) -> None:
    typed = [str(word) for word in words]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["guidebook", *typed])  # which the record of a run is made from
        app(typed, standalone_mode=False)


def read(folder: Path, name: str = "rows.csv") -> pd.DataFrame:
    return pd.read_csv(folder / name)


def shuffled(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns in another order."""
    return frame[list(frame.columns[::-1])]


# Segments with identifiers.


@pytest.fixture
def purchases(tmp_path: Path) -> tuple[Path, pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    rates = np.array([[9, 1, 1, 3.0], [1, 8, 2, 3], [2, 2, 9, 0.5]])
    segment = rng.integers(0, 3, 240)
    frame = pd.DataFrame(rng.poisson(rates[segment]), columns=["bread", "wine", "toys", "books"])
    frame.insert(0, "customer_id", 100_000 + rng.permutation(240))
    frame.to_csv(tmp_path / "customers.csv", index=False)
    return tmp_path, frame, segment


def test_segments_of_customers(purchases, capsys: pytest.CaptureFixture[str]) -> None:
    folder, frame, segment = purchases
    with pytest.raises(ValueError, match="'customer_id' looks like an identifier: --id customer_id keeps it"):
        guidebook("run", "mixture", "--data", folder / "customers.csv")
    out = folder / "out"
    words = ("--data", folder / "customers.csv", "--id", "customer_id", "--method", "em", "--set", "num_components=3")
    guidebook("run", "mixture", *words, "--out", out)
    printed = capsys.readouterr().out
    assert "segment 0: " in printed
    assert "of rows; " in printed
    assert sorted(file.name for file in out.iterdir()) == [
        "parameters.csv", "posterior.safetensors", "report.html", "result.json", "rows.csv", "run.json",
    ]  # fmt: skip
    rows, parameters = read(out), read(out, "parameters.csv").set_index("quantity")["mean"]
    assert rows["customer_id"].tolist() == frame["customer_id"].tolist()
    assert adjusted_rand_score(segment, rows["segment"]) > 0.9

    columns = ["bread", "wine", "toys", "books"]
    rate = np.array([[parameters[f"rate[{k},{column}]"] for column in columns] for k in range(3)])
    weights = np.array([parameters[f"weights[{k}]"] for k in range(3)])

    def probabilities(counts: np.ndarray) -> np.ndarray:
        return softmax(np.log(weights) + poisson.logpmf(counts[:, None], rate).sum(-1), axis=1)

    new = pd.DataFrame({"customer_id": [1, 2], "bread": [9, 0], "wine": [1, 9], "toys": [0, 1], "books": [2, 2]})
    shuffled(new).to_csv(folder / "new.csv", index=False)
    guidebook("predict", out, "--data", folder / "new.csv", "--out", folder / "predicted.csv")
    predicted = pd.read_csv(folder / "predicted.csv")
    assert list(predicted.columns) == list(rows.columns)
    assert predicted["customer_id"].tolist() == [1, 2]
    for table, counts in ((rows, frame[columns]), (predicted, new[columns])):
        found = table[[f"probability_{k}" for k in range(3)]].to_numpy()
        np.testing.assert_allclose(found, probabilities(counts.to_numpy()), atol=2e-5)
        assert (table["segment"] == found.argmax(1)).all()


def test_new_rows_without_a_column(purchases) -> None:
    folder, frame, _ = purchases
    words = ("--data", folder / "customers.csv", "--id", "customer_id", "--method", "em", "--set", "num_components=3")
    guidebook("run", "mixture", *words, "--out", folder / "out")
    frame.drop(columns="wine").to_csv(folder / "new.csv", index=False)
    with pytest.raises(ValueError, match="no column 'wine'"):
        guidebook("predict", folder / "out", "--data", folder / "new.csv")
    with pytest.raises(ValueError, match="holds no fit"):
        guidebook("predict", folder, "--data", folder / "new.csv")


# Churn: text, gaps and a date.


def churn(count: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    plan, region = rng.choice(["basic", "plus", "pro"], count), rng.choice(["north", "south"], count)
    age, usage = rng.normal(45, 12, count).round(), rng.gamma(2, 10, count).round(1)
    odds = 0.04 * (age - 45) - 0.05 * (usage - 20) + 1.5 * (plan == "basic")
    left = np.where(rng.random(count) < expit(odds), "yes", "no")
    frame = pd.DataFrame({"plan": plan, "age": age, "region": region, "usage": usage, "churned": left})
    frame.insert(0, "customer", [f"C-{k}" for k in range(count)])
    frame["since"] = [f"20{20 + k % 4}-0{1 + k % 9}-11" for k in range(count)]
    frame.loc[rng.random(count) < 0.1, "age"] = np.nan
    frame.loc[rng.random(count) < 0.05, "region"] = None
    return frame


def test_churn_with_text_and_gaps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows and predictions are those of scikit-learn on pandas' dummies, with the same prior."""
    frame, file, out = churn(300, 1), tmp_path / "churn.csv", tmp_path / "out"
    frame.to_csv(file, index=False)
    words = ["run", "logistic", "--data", file, "--target", "churned", "--method", "map", "--id", "customer"]
    with pytest.raises(ValueError, match=r"column 'since' holds dates: .*--drop since"):
        guidebook(*words)
    with pytest.raises(
        ValueError, match=r"line \d+, column '\w+': the value is missing .*--missing drop leaves such rows out$"
    ):
        guidebook(*words, "--drop", "since")
    with pytest.raises(ValueError, match="logistic: cannot impute missing values, as gmm, ppca"):
        guidebook(*words, "--drop", "since", "--missing", "impute")
    guidebook(*words, "--drop", "since", "--missing", "drop", "--out", out)
    kept = frame.dropna()
    assert f"{300 - len(kept)} rows with gaps are left out" in capsys.readouterr().out

    def design(table: pd.DataFrame) -> np.ndarray:
        text = pd.get_dummies(table["plan"], dtype=float)[["plus", "pro"]].to_numpy()
        south = (table["region"] == "south").to_numpy(float)
        return np.column_stack([text, table["age"], south, table["usage"]])

    x = design(kept)
    mean, sd = x.mean(0), x.std(0)
    peer = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-10, max_iter=10_000)
    peer.fit(np.column_stack([np.ones(len(x)), (x - mean) / sd]), kept["churned"])

    new = churn(40, 2).drop(columns=["churned", "since"]).dropna()
    shuffled(new).to_csv(tmp_path / "new.csv", index=False)
    guidebook("predict", out, "--data", tmp_path / "new.csv", "--out", tmp_path / "predicted.csv")
    for found, table in ((read(out), kept), (pd.read_csv(tmp_path / "predicted.csv"), new)):
        probability = peer.predict_proba(np.column_stack([np.ones(len(table)), (design(table) - mean) / sd]))[:, 1]
        np.testing.assert_allclose(found["probability_of_yes"], probability, atol=1e-3)
        assert found["customer"].tolist() == table["customer"].tolist()
        assert (found["prediction"] == np.where(found["probability_of_yes"] > 0.5, "yes", "no")).all()
    assert read(out)["row"].tolist() == kept.index.tolist()
    quantities = read(out, "parameters.csv")["quantity"].tolist()
    assert quantities == [f"w[{name}]" for name in ("bias", "plan=plus", "plan=pro", "age", "region=south", "usage")]
    assert "plan: basic is the reference" in (out / "report.html").read_text()

    new.assign(plan="gold").to_csv(tmp_path / "new.csv", index=False)
    with pytest.raises(ValueError, match="column 'plan': 'gold' is a category that the fit has not seen"):
        guidebook("predict", out, "--data", tmp_path / "new.csv")


# Sensors: more columns than rows.


def sensors(folder: Path) -> np.ndarray:
    rng = np.random.default_rng(0)
    x = 20 + rng.normal(size=(205, 2)) @ rng.normal(size=(2, 500)) + 0.3 * rng.normal(size=(205, 500))
    names = [f"sensor_{k}" for k in range(500)]
    pd.DataFrame(x[:200], columns=names).to_csv(folder / "sensors.csv", index=False)
    pd.DataFrame(x[200:], columns=names).to_csv(folder / "new.csv", index=False)
    return x


def test_factors_of_sensors(tmp_path: Path) -> None:
    x, out = sensors(tmp_path), tmp_path / "out"
    guidebook("run", "ppca", "--data", tmp_path / "sensors.csv", "--method", "closed_form", "--out", out)
    guidebook("predict", out, "--data", tmp_path / "new.csv", "--out", tmp_path / "predicted.csv")
    scaled = (x - x[:200].mean(0)) / x[:200].std(0)
    values, axes = np.linalg.eigh(np.cov(scaled[:200].T, bias=True))
    noise, top, axes = values[:-2].mean(), values[-2:][::-1], axes[:, -2:][:, ::-1]  # Tipping and Bishop (1999), 3.2
    normal = multivariate_normal(np.zeros(500), axes @ np.diag(top - noise) @ axes.T + noise * np.eye(500))
    for table, rows in ((read(out), scaled[:200]), (pd.read_csv(tmp_path / "predicted.csv"), scaled[200:])):
        found, means = table[["factor_0", "factor_1"]].to_numpy(), rows @ axes * np.sqrt(top - noise) / top
        np.testing.assert_allclose(found * np.sign((found * means).sum(0)), means, atol=2e-5)
        np.testing.assert_allclose(table["log_density"], normal.logpdf(rows), rtol=2e-5)
    quantities = read(out, "parameters.csv")["quantity"]
    assert "variance[sensor_7]" in set(quantities)
    assert not quantities.str.startswith("covariance").any()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
def test_sensors_fit_into_memory(tmp_path: Path) -> None:
    """By the default method, verdict and tables included: no d × d matrix per draw."""
    sensors(tmp_path)
    words = ["run", "ppca", "--data", tmp_path / "sensors.csv", "--steps", "300", "--out", tmp_path / "out"]
    code = "import atexit\nfrom pathlib import Path\nfrom guidebook.cli import main\n"
    code += "atexit.register(lambda: print(Path('/proc/self/status').read_text()))\nmain()"
    ran = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    peak = next(line for line in ran.stdout.splitlines() if line.startswith("VmHWM:"))
    assert int(peak.split()[1]) < 1.5e6  # kB


# Documents in a column.


@pytest.mark.filterwarnings("ignore:gibbs:UserWarning")  # few draws
def test_topics_of_documents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(3)
    words = {"sea": ["ship", "harbour", "sailor", "tide", "anchor", "captain", "wave", "mast"]}
    words["garden"] = ["rose", "soil", "seed", "shovel", "flower", "spade", "hedge", "compost"]
    theme = rng.choice(list(words), 60)
    texts = [" ".join(rng.choice(words[name], 12)) + ", and so on." for name in theme]
    frame = pd.DataFrame({"note_id": range(60), "text": texts, "stars": rng.integers(1, 6, 60)})
    frame.to_csv(tmp_path / "notes.csv", index=False)
    out = tmp_path / "out"
    counts = ("--draws", 40, "--warmup", 200, "--chains", 2)
    options = ("--method", "gibbs", *counts, "--set", "num_topics=2", "--text", "text", "--id", "note_id")
    guidebook("run", "lda", "--data", tmp_path / "notes.csv", *options, "--out", out)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("topic ")]
    assert sorted(sorted(line.split("): ")[1].split(", ")) for line in lines) == sorted(map(sorted, words.values()))
    rows = read(out)
    assert adjusted_rand_score(theme, rows["topic"]) == 1
    assert (rows["weight"] > 0.8).all()
    sea = rows["topic"][theme == "sea"].iloc[0]
    pd.DataFrame({"text": ["A rose, a rose!", "The captain and the zeppelin"]}).to_csv(
        tmp_path / "new.csv", index=False
    )
    guidebook("predict", out, "--data", tmp_path / "new.csv", "--out", tmp_path / "predicted.csv")
    assert pd.read_csv(tmp_path / "predicted.csv")["topic"].tolist() == [1 - sea, sea]


# European decimals, and gaps that the model fills in.


def test_european_decimals_and_gaps(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    centre = np.array([[0.0, 0, 0], [6, 6, 0], [0, 6, 6]])
    truth = rng.integers(0, 3, 150)
    x = (centre[truth] + rng.normal(size=(150, 3)) + 1000).round(2)
    x[rng.random(x.shape) < 0.1] = np.nan
    frame = pd.DataFrame(x, columns=["Länge", "Breite", "Höhe"])
    text = frame.to_csv(index=False, sep=";", decimal=",", na_rep="")
    (tmp_path / "de.csv").write_text("\ufeff" + text, encoding="utf-8")
    frame.to_csv(tmp_path / "en.csv", index=False)
    for name in ("de", "en"):
        options = ("--data", tmp_path / f"{name}.csv", "--method", "em", "--missing", "impute")
        guidebook("run", "gmm", *options, "--out", tmp_path / name)
    assert (tmp_path / "de" / "rows.csv").read_text() == (tmp_path / "en" / "rows.csv").read_text()
    rows = read(tmp_path / "de")
    assert len(rows) == 150
    assert adjusted_rand_score(truth, rows["segment"]) > 0.8
    record = json.loads((tmp_path / "de" / "result.json").read_text())
    assert "gaps are filled in" in record["reading"]
    (tmp_path / "new.csv").write_text("Höhe;Breite;Länge\n1000,2;1006,1;1005,9\n;1000,4;999,7\n", encoding="utf-8")
    guidebook("predict", tmp_path / "de", "--data", tmp_path / "new.csv", "--out", tmp_path / "predicted.csv")
    of_component = [int(rows["segment"][truth == k].mode()[0]) for k in range(3)]
    assert pd.read_csv(tmp_path / "predicted.csv")["segment"].tolist() == [of_component[1], of_component[0]]
