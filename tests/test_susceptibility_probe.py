"""Susceptibility as a probe: exact where the posterior is Gaussian, stored by observable, shown beside scores."""

import re
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slt_jax import storage
from slt_jax.cli import main
from slt_jax.problem import Problem
from slt_jax.report import responses, write_report
from slt_jax.spectroscopy import Checkpoint, History, Subject, Subloss, scan, susceptibility_probe

NBETA, GAMMA = 1e3, 10.0
STEPS = (1, 10, 100)
#: Variance of an entry under ``exp(-nβ w²/2 - γ w²/2)``.
VARIANCE = 1 / (NBETA + GAMMA)

MODULE = """
import jax.numpy as jnp
import slt_jax as slt
from slt_jax.restriction import mask
from slt_jax.spectroscopy import Subject, Subloss

CENTER = jnp.zeros(3)


def loss_fn(weights, batch):
    return 0.5 * batch @ weights**2


def doubled(params, data):
    return 2 * data


def subject():
    data = jnp.ones((1000, 3))
    return Subject(
        slt.Problem(loss_fn, CENTER, data),
        sublosses={
            "first": Subloss(loss_fn, data * jnp.array([[2.0, 0.0, 0.0]])),
            "relabelled": Subloss(loss_fn, data * jnp.array([[1.0, 0.0, 0.0]]), doubled),
        },
        restrictions={f"head 0.{at}": mask(CENTER, jnp.arange(3) == at) for at in range(3)},
    )


def without():
    return slt.Problem(loss_fn, CENTER, jnp.ones((1000, 3)))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the command line makes of somebody's subject: three checkpoints, three heads, two observables."""
    place = tmp_path_factory.mktemp("bowl")
    (place / "three_heads.py").write_text(MODULE)
    storage.save_checkpoints(place / "checkpoints", {step: jnp.zeros(3) for step in STEPS})
    sys.path.insert(0, str(place))
    try:
        command = ["scan", str(place / "checkpoints"), "--problem", "three_heads:subject", "--out", str(place / "out")]
        options = ["--probes", "susceptibility", "--restrictions", "head 0.*", "--sublosses", "all"]
        code = main([*command, *options, "--nbeta", str(NBETA), "--gamma", str(GAMMA)])
        yield place / "out", code, command
    finally:
        sys.path.remove(str(place))


def test_the_reading_of_a_gaussian_is_exact_and_stored_by_observable(folder):
    """``L = w²/2`` and ``L' - L = ± w²/2``: χ is ``∓ σ⁴/2``, and the standardised one ∓ 1."""
    out, code, _ = folder
    assert code == 0
    node = storage.read_readings(out)["/susceptibility"]
    assert node["susceptibility"].dims == ("step", "restriction", "subloss", "observable")
    assert node["observable"].values.tolist() == ["first", "relabelled"]
    assert node["healthy"].values.all()
    signs = {"head 0.0": -1, "head 0.1": 1, "head 0.2": 1}
    for head, sign in signs.items():
        at = node.sel(restriction=head, subloss="all")
        # 18 readings are compared, on the same draws in pairs
        away = (at["susceptibility"].values - sign * VARIANCE**2 / 2) / at["susceptibility_error"].values
        assert np.abs(away).max() < 4
        np.testing.assert_allclose(at["standardised"], sign, atol=1e-3)
        # what is asked of a subloss is asked of it as it is at the checkpoint
        np.testing.assert_allclose(*(at["susceptibility"].sel(observable=one) for one in ("first", "relabelled")))
        level = 0.5 * NBETA * VARIANCE
        assert (np.abs(at["value"] - level) < 4 * at["std_error"]).all()
        # the control knows the prior only, where draws are 100 times as wide, and correlates as much
        np.testing.assert_allclose(at["prior"], sign, atol=1e-3)


def test_the_report_shows_a_map_for_each_observable(folder):
    text = (folder[0] / "report.html").read_text()
    for words in ("χ on first with one attention head free", "χ on relabelled", "The largest at step 100 is head 0."):
        assert words in text
    assert "Which heads" not in text


def test_rankings_and_transitions_are_set_beside_the_scores_of_the_heads(folder):
    out = folder[0]
    study = storage.read_study(out)
    steps = np.unique(np.round(np.geomspace(1, 100, 60)).astype(int))
    rise = 1 / (1 + np.exp(-8 * np.log(steps / 12)))
    scores = {"lookup 0.0": 0.1 * rise, "lookup 0.1": 0.8 * rise, "lookup 0.2": 0.9 * rise}
    before = storage.read_history(out)
    try:
        storage.write_history(out, History(steps, {"all": 1 - rise}, scores))
        storage.write_study(out, {**study, "rankings": [["lookup", "first"]]})
        text = write_report(out).read_text()
    finally:
        storage.write_study(out, study)
        if before is not None:
            storage.write_history(out, before)
    assert "Which heads: lookup beside the response to first" in text
    assert "Over 3 heads the two rankings have the rank correlation" in text
    order = re.findall(r"<td class=\"words\">head 0\.(\d)</td>", text.split("Which heads")[1])
    assert order[:3] == ["2", "1", "0"]
    assert text.count("✓ by both") == 2
    assert "by neither" in text
    # the readings are the same at all checkpoints: they have no transition, and say so
    assert text.count("does not move") == 4


def test_over_time_a_head_is_asked_in_nats_and_not_in_units_of_its_own_deviation():
    steps = np.unique(np.round(np.geomspace(1, 1000, 60)).astype(int))

    def row(step, chi):
        numbers = {
            "susceptibility": chi,
            "susceptibility_error": 1e-10,
            "standardised": 1.0,
            "standardised_error": 0.01,
        }
        arrays = {"observable": ["first"], **{name: [number] for name, number in numbers.items()}}
        return SimpleNamespace(step=step, value=1.0, std_error=0.01, arrays=arrays)

    curve = 1 / (1 + np.exp(-8 * np.log(steps / 30)))
    head = responses._Head("head 0.0", curve, [row(1, 0.0), row(30, 1e-8), row(1000, 2e-8)])
    content = SimpleNamespace(history=SimpleNamespace(steps=steps))
    text = str(responses._transitions(content, [head], "lookup", "first"))
    assert text.count("does not move") == 1, "its energy stays, its χ moves"
    assert text.count("✓ within") == 1


def test_a_finished_reading_is_measured_again_only_where_an_observable_has_changed():
    data = jnp.ones((10, 3))

    def loss_fn(weights, batch):
        return 0.5 * batch @ weights**2

    calls = []

    def measure(key, problem, restriction, *, observables, **settings):
        calls.append({name: np.asarray(one.data)[0].tolist() for name, one in observables.items()})
        zero = np.asarray(0.0)
        return {"value": zero, "std_error": zero, "healthy": np.asarray(True)}

    probe = susceptibility_probe()._replace(measure=measure)
    finished = {}

    def go(part):
        subject = Subject(Problem(loss_fn, jnp.zeros(3), data), sublosses={"part": Subloss(loss_fn, part)})
        point = [Checkpoint(1, lambda: jnp.zeros(3))]
        return list(scan(jax.random.key(0), subject, point, {"susceptibility": probe}, finished=finished))

    go(data)
    go(data)
    assert calls == [{"part": [1, 1, 1]}]
    go(3 * data)
    assert calls[1:] == [{"part": [3, 3, 3]}]


REFUSED = {
    "no draws": (susceptibility_probe(draws=3), "draws: got 3"),
    "no chains": (susceptibility_probe(chains=0), "chains"),
    "a prior that is none": (susceptibility_probe(gamma=0.0), "gamma: got 0.0; the control at nβ = 0 needs a prior"),
    "no temperature": (susceptibility_probe(nbeta=-1.0), "nbeta: got -1"),
    "too large a batch": (susceptibility_probe(batch_size=11), "batch_size: got 11"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_settings_that_cannot_be_measured_with_are_refused_before_anything_is(case):
    probe, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        probe.check(Problem(lambda w, x: x @ w**2, jnp.zeros(3), jnp.ones((10, 3))), **probe.settings)


def test_a_subject_without_sublosses_is_refused(folder, tmp_path, capsys):
    checkpoints = folder[2][1]
    command = ["scan", checkpoints, "--problem", "three_heads:without", "--out", str(tmp_path / "new")]
    assert main([*command, "--probes", "susceptibility"]) == 2
    assert "probes: 'susceptibility' looks at the sublosses, and the subject has none" in capsys.readouterr().err
