"""The study of programs: the search finds one, its coefficient is the exact one, and the report shows all three."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slt_jax import programs, storage
from slt_jax.studies import programs as study_module
from slt_jax.studies.programs import OUTPUTS, REFERENCES, STATES, STEPS, SYMBOLS, WORDS
from slt_jax.synthesis import solves
from slt_jax.truths import turing
from slt_jax.workflow import run_study


def test_the_three_programs_compute_one_function_and_have_three_coefficients():
    for program in REFERENCES.values():
        programs.check(program, OUTPUTS, STEPS, must_halt=False)
        assert set(program.states) == set(STATES)
        assert set(program.symbols) == set(SYMBOLS)
    values = [str(turing(program, WORDS, STEPS).learning_coefficient) for program in REFERENCES.values()]
    assert values == ["44/5", "124/13", "10"]


def test_the_search_of_the_study_ends_at_a_program_of_the_function():
    study = study_module.study()
    whole = study.subject.problem

    @jax.jit
    def searched(key):
        state = study.init(key)
        ended = jax.lax.fori_loop(0, study_module.SWEEPS, lambda step, state: study.update(state, step), state)
        return study.params_of(state), study.params_of(ended)

    begun, ended = jax.vmap(searched)(jax.random.split(jax.random.key(0), 8))
    chosen = [jax.tree.map(lambda leaf, one=one: leaf[one], ended) for one in range(8)]
    assert sum(solves(study_module.program_of(params), OUTPUTS, STEPS) for params in chosen) >= 7
    before, after = (jax.vmap(lambda z: whole.loss_fn(z, whole.data).mean())(params) for params in (begun, ended))
    assert before.min() > 0.3
    assert np.sort(after)[6] < 0.05


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The study from search to report with few draws, two checkpoints, and a ladder of three rungs."""
    folder = tmp_path_factory.mktemp("programs") / "out"
    study = study_module.study()
    sizes = {"chains": 8, "draws": 40, "burnin": 40}
    probes = {
        name: probe._replace(settings={**probe.settings, **sizes})
        for name, probe in {**study.probes, **study.whole_probes}.items()
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_module, "LADDER", (0.3, 1e3, 1e8))
        short = study._replace(probes={"llc": probes["llc"]}, whole_probes={"programs": probes["programs"]}, budget=2)
        outcome = run_study(short, folder, 0, lambda *_, **__: None)
    return folder, outcome


def test_a_reading_is_the_coefficient_of_the_program_that_its_code_rounds_to(finished):
    folder, outcome = finished
    assert outcome.failed == []
    node = storage.read_readings(folder)["/llc"].sel(restriction="full", subloss="all")
    for row in range(len(node.step)):
        write, following, move = node["rules"].values[row].astype(int).tolist()
        given = ((True,) * len(SYMBOLS),) * len(STATES)
        tables = (tuple(map(tuple, table)) for table in (write, following, move))
        program = programs.Program(STATES, SYMBOLS, *tables, given)
        exact = float(turing(program, WORDS, STEPS).learning_coefficient)
        # m above 1 lowers λ_eff by (m - 1)/log nβ, .04 for each
        assert abs(node["value"].values[row] - exact) < 5 * node["std_error"].values[row] + 0.15
        assert (node["wrong"].values[row] == 0) == solves(program, OUTPUTS, STEPS)
    assert node["wrong"].values[-1] == 0


def test_the_report_shows_the_machines_their_syndromes_and_the_odds(finished):
    page = (finished[0] / "report.html").read_text()
    assert "Three programs of one function" in page
    for name in REFERENCES:
        assert f"What breaks the program “{name}”" in page
    assert "entering acc instead of rej in state rej reading B breaks it alone" in page
    assert "Posterior odds of all codes that round to a program" in page
    node = storage.read_readings(finished[0])["/programs"].sel(restriction="full", subloss="all")
    log_odds = node["log_odds"].values[0]
    assert (log_odds[-1] == 0).all()
    assert (np.diff(log_odds[0]) > 0).all()  # the program that halts has the lowest coefficient


def test_a_certainty_is_0_for_a_coin_and_1_for_a_program():
    study = study_module.study()
    coin = study.subject.problem.params
    # a uniform code ends in either state with probability 1/2
    for concept in study.subject.concepts.values():
        assert abs(float(concept(coin))) < 1e-4
    losses = study.subject.problem.loss_fn(coin, study.subject.problem.data)
    assert jnp.allclose(losses, jnp.log(2.0))


@pytest.mark.parametrize("name", ["flow", "hessian"])
def test_more_probes_can_be_asked_of_the_study(name):
    from slt_jax.cli import _probes

    settings = dict(study_module.study().probes["llc"].settings)
    assert set(_probes(name, settings)) == {name}
