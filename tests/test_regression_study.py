"""The study ``regression``: exact predictors of linear tasks, and a network that comes near them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from slt_jax.spectroscopy import recorder_of
from slt_jax.spectroscopy.subject import problem_at
from slt_jax.studies import regression
from slt_jax.studies.linear_tasks import Sequences, as_vectors, discrete, draw_sequences, draw_tasks, ridge
from slt_jax.studies.study import train

NOISE = 0.25


def sequences(count=5, examples=4, dimension=3, seed=0):
    task_key, key = jax.random.split(jax.random.key(seed))
    return draw_sequences(key, draw_tasks(task_key, count, dimension), examples, NOISE)


class Stub(NamedTuple):
    """A network that says what its parameters are, in place of ``Regressor``."""

    def apply(self, variables, vectors):
        del vectors
        return jnp.repeat(variables["params"], 2, axis=1)


# --- the exact predictors


def test_ridge_is_the_least_of_the_squares_and_the_penalty_over_the_examples_so_far():
    found, (inputs, answers) = ridge(sequences(), NOISE), map(np.asarray, sequences())
    for row in range(5):
        for k in range(4):
            x, y = inputs[row, :k], answers[row, :k]
            weights = np.linalg.solve(x.T @ x + NOISE**2 * np.eye(3), x.T @ y)
            np.testing.assert_allclose(found.mean[row, k], inputs[row, k] @ weights, rtol=1e-3, atol=1e-4)


def test_the_variance_of_ridge_is_how_far_answers_lie_from_it():
    """Over 20 000 sequences the squared misses, in units of it, are 1 on average at every place, within 4 errors."""
    many = sequences(20_000, 4, 2)
    found = ridge(many, NOISE)
    units = np.square(np.asarray(many.answers - found.mean)) / np.asarray(found.variance)
    errors = units.std(axis=0) / np.sqrt(len(units))
    assert (np.abs(units.mean(axis=0) - 1) < 4 * errors).all()
    doubled = np.square(np.asarray(many.answers - 2 * found.mean)) / np.asarray(found.variance)
    assert (np.abs(doubled.mean(axis=0) - 1) > 4 * errors)[1:].all()


def test_the_mean_over_tasks_is_that_of_bayes():
    tasks, given = draw_tasks(jax.random.key(5), 6, 3), sequences()
    found, (inputs, answers) = discrete(given, tasks, NOISE), map(np.asarray, given)
    for k in range(4):
        likely = np.stack(
            [norm.pdf(answers[:, :k], inputs[:, :k] @ np.asarray(task), NOISE).prod(axis=1) for task in tasks], axis=1
        )
        weights = likely / likely.sum(axis=1, keepdims=True)
        said = inputs[:, k] @ np.asarray(tasks).T
        mean = (weights * said).sum(axis=1)
        np.testing.assert_allclose(found.mean[:, k], mean, rtol=1e-3, atol=1e-4)
        spread = (weights * said**2).sum(axis=1) - mean**2 + NOISE**2
        np.testing.assert_allclose(found.variance[:, k], spread, rtol=1e-2, atol=1e-4)


def test_with_all_tasks_of_the_prior_it_is_ridge_and_with_few_it_is_not():
    given = sequences(dimension=1)
    dense = norm.ppf((np.arange(20_000) + 0.5) / 20_000)[:, None]
    np.testing.assert_allclose(discrete(given, jnp.asarray(dense), NOISE).mean, ridge(given, NOISE).mean, atol=2e-3)
    few = discrete(given, jnp.asarray(dense[::5000]), NOISE).mean
    assert np.abs(np.asarray(few - ridge(given, NOISE).mean)).max() > 0.05


def test_a_sequence_asks_before_it_tells():
    vectors = np.asarray(as_vectors(sequences()))
    np.testing.assert_array_equal(vectors[:, ::2, 1:], sequences().inputs)
    np.testing.assert_array_equal(vectors[:, 1::2, 0], sequences().answers)
    assert (vectors[:, ::2, 0] == 0).all()
    assert (vectors[:, 1::2, 1:] == 0).all()


# --- losses and concepts


@pytest.mark.parametrize("tasks", [None, 4])
def test_the_loss_is_the_expectation_over_the_answers(tasks):
    known = None if tasks is None else draw_tasks(jax.random.key(7), tasks, 2)
    setting = regression.Setting(2, 4, 1, None)
    many = regression.sequences_of(jax.random.key(3), setting, known, 40_000)
    said = 0.7 * ridge(many, NOISE).mean
    expected = regression.expected_loss(Stub(), said, regression.asked(many, known, np.ones(4)))
    actual = 0.5 * np.square(np.asarray(many.answers - said))
    errors = (actual - np.asarray(expected)).std(axis=0) / np.sqrt(len(actual))
    assert (np.abs((actual - np.asarray(expected)).mean(axis=0)) < 4 * errors).all()


def test_concepts_are_0_for_the_answer_0_and_1_for_the_best_one():
    known = draw_tasks(jax.random.key(7), 3, 2)
    given = regression.sequences_of(jax.random.key(3), regression.Setting(2, 6, 1, None), known, 64)
    found = regression.concepts(Stub(), given, known)
    best, line = regression.best(given, known).mean, ridge(given, NOISE).mean
    for name, perfect in (("beyond zero", best), ("tasks known", best), ("in-context score", best), ("ridge", line)):
        np.testing.assert_allclose(found[name](perfect), 1, rtol=1e-5)
    for name in ("beyond zero", "tasks known", "ridge"):
        assert found[name](jnp.zeros_like(best)) == 0
    # the two predictors are told apart, and what is said in the wrong order is worth less than nothing
    assert found["ridge"](best) < 0.95
    assert found["tasks known"](best[::-1]) < 0


# --- training


@pytest.fixture(scope="module")
def trained():
    study = regression.study(steps=600)
    kept = {}
    recorder = recorder_of(study.subject, study.record_at)
    history = train(jax.random.key(0), study, recorder, kept.__setitem__, lambda done, total: None)
    return study, history, kept


def test_a_network_leaves_the_answer_0_for_ridge_regression(trained):
    _, history, _ = trained
    ridge_like = history.concepts["ridge"]
    assert abs(ridge_like[0]) < 0.1
    assert ridge_like[-1] > 0.7
    assert history.concepts["in-context score"][-1] > 0.6
    # the first answers cannot become better than chance, the last ones do
    falls = {name: (curve[0] - curve[-1]) / curve[0] for name, curve in history.losses.items()}
    assert falls["many examples"] > 1.3 * falls["few examples"]


def test_a_network_is_without_loss_at_its_own_answers_and_only_there(trained):
    study, _, kept = trained
    for part in study.subject.sublosses.values():
        own = problem_at(part, kept[600])
        assert float(jnp.abs(own.loss_fn(kept[600], own.data)).max()) < 1e-9
        assert float(jnp.mean(own.loss_fn(kept[0], own.data))) > 1e-2


def test_where_tasks_are_finitely_many_one_more_concept_is_looked_at_and_training_meets_these_only():
    study = regression.study(tasks=4)
    assert set(study.subject.concepts) - set(regression.study().subject.concepts) == {"tasks known"}
    known = draw_tasks(jax.random.key(2306), 4, 2)
    drawn = regression.sequences_of(jax.random.key(9), regression.Setting(2, 8, 64, None), known, 64)
    misses = np.asarray(drawn.answers[:, None] - jnp.einsum("bkd,md->bmk", drawn.inputs, known)).std(axis=2).min(axis=1)
    assert misses.max() < 3 * NOISE


BAD = {
    "tasks: got 0": {"tasks": 0},
    "dimension: got 0": {"dimension": 0},
    "heads: got 3": {"heads": 3},
    "examples: got 1": {"examples": 1},
    "steps: got 10": {"steps": 10},
}


@pytest.mark.parametrize("message", BAD)
def test_what_is_no_study_is_refused_with_the_reason(message):
    with pytest.raises(ValueError, match=message):
        regression.study(**BAD[message])


def test_a_sequence_without_examples_before_an_answer_is_answered_by_the_prior():
    found = ridge(Sequences(jnp.ones((1, 1, 2)), jnp.ones((1, 1))), NOISE)
    np.testing.assert_allclose(found.mean, 0)
    np.testing.assert_allclose(found.variance, 2 + NOISE**2)
