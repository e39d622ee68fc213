"""The benchmarks' own arithmetic, and that the peers' hand-written models are ours: a race between equals."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer.mcmc.util import initialize_model

from guidebook.inference.traces.draws import nodes
from guidebook.models import vae

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # benchmarks are no part of the package

from benchmarks import measure, nuts, table  # noqa: E402
from benchmarks.peers import torch_svi, torch_vae  # noqa: E402
from benchmarks.peers.problems import NAMES, problem  # noqa: E402


@pytest.mark.parametrize("name", sorted(torch_svi.TARGETS))
def test_hand_written_torch_has_the_density_of_the_pyro_model(name: str) -> None:
    found = problem(name)
    target = torch_svi.TARGETS[name](*found.data)
    start, potential, _, _ = initialize_model(found.model, found.data)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        u = torch.randn(target.size, generator=generator, dtype=torch.float64)
        parts = u.split([start[site].numel() for site in target.sites])
        sites = {site: part.view(start[site].shape) for site, part in zip(target.sites, parts, strict=True)}
        torch.testing.assert_close(target.log_density(u), -potential(sites), rtol=1e-10, atol=0)


def test_hand_written_torch_finds_the_mean_field_optimum() -> None:
    """Data without information: the optimum is the prior, N(0, 1) for each weight."""
    target = torch_svi.logistic(torch.zeros(4, 2), torch.tensor([0.0, 1.0, 0.0, 1.0]))
    pyro.set_rng_seed(0)
    loc, scale = torch_svi.fit(target, 3000, torch.zeros(1))
    torch.testing.assert_close(loc[1:], torch.zeros(2), atol=0.15, rtol=0)
    torch.testing.assert_close(scale[1:], torch.ones(2), atol=0.15, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_hand_written_numpyro_has_the_density_of_the_pyro_model(name: str) -> None:
    pytest.importorskip("numpyro")
    assert nuts.density_gap(name)["gap"] < 1e-10


def test_hand_written_autoencoder_has_the_density_of_the_pyro_model() -> None:
    pyro.set_rng_seed(0)
    peer = torch_vae.Vae(columns=9, hidden=5, latent_dim=3)
    x, z = torch.bernoulli(torch.full((7, 9), 0.4)), torch.randn(7, 3)
    names = ("decoder.0", "decoder.1", "decoder.logits")
    for name, layer in zip(names, (peer.decoder[0], peer.decoder[2], peer.decoder[4]), strict=True):
        for kind in ("weight", "bias"):
            pyro.param(f"{name}.{kind}", getattr(layer, kind).detach().clone())
    model = poutine.condition(vae.model, data={"z": z})
    trace = poutine.trace(model).get_trace(x, latent_dim=3, hidden=(5, 5))
    trace.compute_log_prob()
    torch.testing.assert_close(peer.log_likelihood(x, z), nodes(trace)["x"]["log_prob"].sum())


def test_ratios_are_of_runs_that_took_turns() -> None:
    assert measure.ratios([1.0, 2.0], [4.0, 6.0], share=False) == [4.0, 3.0]
    assert measure.ratios([1.0, 2.0], [4.0, 8.0], share=True) == [0.25, 0.25]
    assert measure.ratios([10.0, 20.0], [5.0, 5.0], share=False, higher=True) == [2.0, 4.0]
    assert measure.ratios([1.0, 2.0, 4.0], [8.0], share=False) == [8.0, 4.0, 2.0]
    assert measure.ratios([2.0], [4.0, 8.0], share=False) == [2.0, 4.0]
    assert measure.quartiles([5.0, 1.0, 2.0, 4.0, 3.0]) == (3.0, 2.0, 4.0)


def test_records_say_whether_what_was_asked_for_was_reached() -> None:
    faster = measure.record("a", "n", "p", [1.0, 1.0], [20.0, 22.0], "s", asked=20.0, what="")
    assert (faster.ratio, faster.met) == ((21.0, 20.5, 21.5), True)
    share = measure.record("a", "n", "p", [3.0], [10.0], "s", asked=0.25, share=True, what="")
    assert share.met is False
    assert measure.bound("a", "n", [9.0, 11.0, 9.5], "s", asked=10.0, what="").met is True
    assert measure.record("a", "n", "p", [1.0], [1.0], "s", what="").met is None


def test_the_table_shows_ratio_spread_and_what_was_asked() -> None:
    faster = measure.record(
        "a", "n", "p", [1.0, 1.0], [20.0, 22.0], "s", asked=20.0, memory=(3.0, 12.4), what="settings"
    )
    assert table.cells(faster) == ("n", "p", "1.00 s", "21.0 s", "21.0× (20.5–21.5)", "≥ 20× ✓", "3 / 12", "2")
    slow = measure.bound("a", "n", [11.0], "s", asked=10.0, what="settings")
    assert table.cells(slow) == ("n", "–", "11.0 s", "–", "–", "≤ 10 s ✗", "–", "1")
    written = table.markdown([faster, slow], ["a note"], quick=True)
    assert "| n | p | 1.00 s | 21.0 s |" in written
    assert "- n, against p: settings." in written
    assert "- a note" in written


def test_a_step_is_the_difference_of_two_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 5.0, 10.0, 17.0])  # 3 s around 2 s a thousand steps
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(clock))
    assert measure.step_time(lambda _: None, 1000, 2000) == pytest.approx(0.002)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read as Linux gives it")
def test_peak_memory_sees_what_is_given_back() -> None:
    with measure.peak_memory() as peak:
        block = np.ones(8_000_000)
        del block
    assert peak.mib == pytest.approx(8_000_000 * 8 / 2**20, abs=8)


def test_independent_draws_have_their_number_as_effective_size() -> None:
    draws = torch.randn(4, 1000, 2, generator=torch.Generator().manual_seed(0))
    assert measure.smallest_ess({"x": draws, "constant": torch.ones(4, 1000)}) == pytest.approx(4000, rel=0.15)


def test_the_command_says_what_it_takes() -> None:
    command = [sys.executable, "-m", "benchmarks", "--help"]
    shown = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=True).stdout
    assert "--quick" in shown
    assert "--only" in shown
