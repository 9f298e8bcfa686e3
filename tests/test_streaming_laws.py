"""The coefficient of a stream is that of its data, and not where batches are no draws from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import CENTRED, assert_same, deviation, regression
from test_streaming import CENTER, DATA, EXAMPLES, FEATURES, GAMMA, NBETA, SIZE, loss_fn, shuffled

import slt_jax as slt

LENGTHS = {"draws": 1000, "burnin": 500, "chains": 8}
QUICK = {"nbeta": NBETA, "gamma": GAMMA, **LENGTHS}


@pytest.fixture(scope="module")
def exact():
    curvatures = np.linalg.eigvalsh(FEATURES.T.astype(float) @ FEATURES / EXAMPLES)
    return 0.5 * np.sum(NBETA * curvatures / (NBETA * curvatures + GAMMA))


def test_the_coefficient_of_a_regression_on_a_stream_is_exact(exact):
    found = slt.llc(jax.random.key(3), loss_fn, CENTER, shuffled(), **QUICK)
    assert bool(found.health.ok), found.explain()
    assert deviation(found.value, found.std_error, exact) < 3
    assert float(found.std_error) < 0.1 * exact
    assert "on batches of 32 with control variates" in found.explain()
    assert int(found.settings.gradients) == 1500
    again = slt.llc(jax.random.key(3), loss_fn, CENTER, shuffled(), **QUICK, segment=100)
    assert_same(again.value, found.value)


def test_the_coefficient_of_a_deep_linear_network_on_a_stream_is_exact():
    """Rank 2 in widths 4, 8, 4: λ = 8, and on the head alone, of 1600 examples, the minimum would be another one."""
    examples, size = 20_000, 200
    problem = slt.truths.deep_linear_problem(jax.random.key(0), (4, 8, 4), 2, examples=examples, population=False)
    inputs, outputs = map(np.asarray, problem.data)
    first, second = map(np.asarray, problem.params)
    noise = outputs - inputs @ (second @ first).T
    # the truth is the minimum where the noise knows nothing of the inputs
    noise -= inputs @ np.linalg.lstsq(inputs, noise, rcond=None)[0]
    outputs = inputs @ (second @ first).T + noise
    random = np.random.default_rng(0)

    def factory():
        for rows in random.permutation(examples).reshape(-1, size):
            yield inputs[rows], outputs[rows]

    found = slt.llc(jax.random.key(1), problem.loss_fn, problem.params, factory, gamma=10.0, draws=4000, burnin=2000)
    exact = float(slt.truths.deep_linear((4, 8, 4), 2).learning_coefficient)
    assert bool(found.health.ok), found.explain()
    assert float(found.std_error) < 0.05 * exact
    assert deviation(found.value, found.std_error, exact) < 3


def test_a_longer_run_is_made_where_the_error_asks_for_it(exact):
    settings = {**QUICK, "draws": 200, "burnin": 200, "relative_error": 0.02}
    short, long = (
        slt.llc(jax.random.key(3), loss_fn, CENTER, shuffled(), **settings, budget=budget) for budget in (400, 1200)
    )
    assert (int(short.settings.gradients), int(long.settings.gradients)) == (400, 1200)
    assert deviation(long.value, long.std_error, exact) < 3


def test_a_sampler_of_ones_own_runs_on_a_stream_as_it_is(exact):
    settings = {**QUICK, "sampler": slt.samplers.sgld(2e-4)}
    found = slt.llc(jax.random.key(3), loss_fn, CENTER, shuffled(), **settings)
    assert deviation(found.value, found.std_error, exact) < 3
    assert 0 < float(found.health.heating) < 0.1
    memory = slt.llc(jax.random.key(3), loss_fn, CENTER, DATA, **settings, batch_size=SIZE)
    assert deviation(found.value - memory.value, float(jnp.hypot(found.std_error, memory.std_error)), 0) < 3


def test_a_sorted_stream_gives_another_answer_and_shows_it():
    """For half of a pass all batches pull to one side: chains go there, where these batches have less loss."""
    data = np.sort(np.tile(np.asarray(CENTRED), 8))
    random = np.random.default_rng(0)
    orders = {"sorted": lambda: data.reshape(-1, 8), "shuffled": lambda: random.permutation(data).reshape(-1, 8)}
    settings = {"nbeta": 20.0, "gamma": 0.1, "sampler": slt.samplers.sgld(5e-3), **LENGTHS}
    found = {
        name: slt.llc(jax.random.key(0), regression, jnp.float32(0.0), factory, **settings)
        for name, factory in orders.items()
    }
    exact = 0.5 * 20 / 20.1
    assert deviation(found["shuffled"].value, found["shuffled"].std_error, exact) < 3
    assert abs(float(found["sorted"].value) - exact) > 4 * exact
    passed = {name: bool(one.health.checks["minimum"]) for name, one in found.items()}
    assert passed == {"sorted": False, "shuffled": True}
