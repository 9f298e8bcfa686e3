"""Susceptibility: the exact derivative where the posterior is Gaussian, and what its controls have to read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import compilations, deviation
from regression import (
    CENTER,
    DATA,
    FEATURES,
    GAMMA,
    HELD_OUT,
    HESSIAN,
    INPUTS,
    NBETA,
    OTHERS,
    TARGETS,
    WEIGHTS,
    loss_fn,
    single,
    spread,
)

import slt_jax as slt
from slt_jax.response import reweighted

KEY = jax.random.key(0)
FREE = {"first": slice(0, 8), "second": slice(8, 16)}
COMPONENTS = {
    name: slt.restriction.mask(CENTER, (jnp.arange(INPUTS) >= free.start) & (jnp.arange(INPUTS) < free.stop))
    for name, free in FREE.items()
}


def squares(weights, inputs):
    return 0.5 * (inputs @ (weights - CENTER)) ** 2


#: Stiffer in the first component, with the same minimum; data that were held out; a loss of its own, softer.
STRETCH = np.where(np.arange(INPUTS) < 8, 1.3, 1.0)
STRETCHED = FEATURES * STRETCH, FEATURES * STRETCH @ WEIGHTS - (FEATURES @ WEIGHTS - TARGETS)
OBSERVABLES = {
    "stiffer": single(*STRETCHED),
    "held out": HELD_OUT,
    "softer": (squares, 0.8 * DATA[0]),
}


def derivatives(features, targets):
    """Hessian and gradient of the loss at the centre on such data."""
    return features.T @ features / len(features), features.T @ (features @ WEIGHTS - targets) / len(features)


#: Of losses of a tenth of a nat in single precision: the second component does not feel what stretches the first.
ROUNDING = 1e-8
CHANGED = [
    derivatives(*STRETCHED),
    derivatives(*OTHERS),
    derivatives(0.8 * FEATURES, 0.8 * FEATURES @ WEIGHTS),
]


def mean_loss(h, changed, free):
    """``⟨L - L*⟩`` under ``exp(-nβ ((1 - h) L + h L') - γ/2 |z|²)``, exactly."""
    hessian, gradient = changed
    stiffness = NBETA * ((1 - h) * HESSIAN + h * hessian) + GAMMA * np.eye(INPUTS)
    covariance = np.zeros((INPUTS, INPUTS))
    covariance[free, free] = np.linalg.inv(stiffness[free, free])
    shift = -covariance @ (NBETA * h * gradient)
    return 0.5 * np.trace(HESSIAN @ covariance) + 0.5 * shift @ HESSIAN @ shift


def quadratic_covariance(covariance, changed):
    """``Cov(½ zᵀ H z, ½ zᵀ (H' - H) z) = ½ tr(H Σ (H' - H) Σ)``."""
    return 0.5 * np.trace(HESSIAN @ covariance @ (changed[0] - HESSIAN) @ covariance)


def grid(function):
    return np.array([[function(changed, free) for changed in CHANGED] for free in FREE.values()])


@pytest.fixture(scope="module")
def found():
    settings = dict(nbeta=NBETA, gamma=GAMMA, chains=16)
    return slt.susceptibility(KEY, loss_fn, CENTER, DATA, COMPONENTS, OBSERVABLES, **settings)


# exact answers


def test_it_is_the_derivative_of_the_mean_loss(found):
    step = 1e-5
    exact = grid(lambda changed, free: (mean_loss(step, changed, free) - mean_loss(-step, changed, free)) / (2 * step))
    formula = grid(lambda changed, free: -NBETA * quadratic_covariance(spread(free=free), changed))
    np.testing.assert_allclose(exact, formula, rtol=1e-3, atol=1e-6)
    deviations = np.abs(found.value - exact / NBETA) / np.hypot(found.std_error, ROUNDING)
    assert deviations.max() < 3
    # and the errors tell it from nothing where there is most
    assert (np.abs(found.value[:, 2]) > 5 * found.std_error[:, 2]).all()
    assert float(found.value[0, 0]) < -5 * float(found.std_error[0, 0])
    assert bool(found.ok.all()), found.explain()
    assert found.components == ("first", "second")
    assert "first: stiffer -" in found.explain()


def test_a_finite_response_is_that_of_the_changed_posterior(found):
    finite = found.respond(0.3)
    exact = grid(lambda changed, free: mean_loss(0.3, changed, free) - mean_loss(0.0, changed, free))
    good = np.asarray(finite.ok)
    # stiffer and softer directions; the held-out data move the posterior to where there are no draws, and it says so
    assert good.tolist() == [[True, False, True], [True, False, True]]
    assert (np.abs(finite.value - exact) / np.hypot(finite.std_error, ROUNDING))[good].max() < 3
    np.testing.assert_allclose(finite.linear, 0.3 * NBETA * found.value, rtol=1e-5)
    # where the change is twice as large, the linear response is off by more than its error
    change = mean_loss(0.6, CHANGED[0], FREE["first"]) - mean_loss(0.0, CHANGED[0], FREE["first"])
    assert deviation(found.respond(0.6).linear[0, 0], 0.6 * NBETA * found.std_error[0, 0], change) > 3
    nothing = found.respond(0.0)
    np.testing.assert_allclose(nothing.value, 0.0, atol=1e-6)
    np.testing.assert_allclose(nothing.effective, np.repeat(np.asarray(found.ess)[:, None], 3, 1), rtol=1e-3)


def test_the_smallest_response_is_the_linear_one(found):
    small, opposite = found.respond(1e-3), found.respond(-1e-3)
    slope = 0.5 * (small.value - opposite.value)
    # weights tell chains apart: the slope is the covariance of all draws together, whatever the draws
    energies, changes = (np.asarray(series, np.float64) for series in (found.energies, found.changes))
    apart = [series - series.mean(axis=(1, 2), keepdims=True) for series in (energies, changes)]
    together = -1e-3 * float(found.nbeta) * np.mean(apart[0][..., None] * apart[1], axis=(1, 2))
    np.testing.assert_allclose(slope, together, rtol=1e-3, atol=ROUNDING)
    assert (np.abs(found.respond(0.3).value / 300 - together) > 1e-3 * np.abs(together) + ROUNDING).any()
    # χ takes each chain by itself: between chains there is one covariance more for each, of so many effective draws
    chains = found.energies.shape[1]
    share = np.sqrt(chains / np.asarray(found.ess))[:, None]
    assert (np.abs(slope - small.linear) < 4 * share * small.std_error + ROUNDING).all()


# controls


def test_at_infinite_temperature_the_control_reads_the_prior(found):
    def exact(changed, free):
        prior = np.zeros((INPUTS, INPUTS))
        prior[free, free] = np.eye(8) / GAMMA
        return quadratic_covariance(prior, changed)

    deviations = np.abs(found.prior.covariance - grid(exact)) / found.prior.std_error
    assert deviations.max() < 4
    # the posterior is another law: what the prior says of the sizes is not what was measured
    assert (np.abs(found.prior.covariance) > 100 * np.abs(found.posterior.covariance)).any()


def test_the_gaussian_control_has_the_marginals_of_the_chain_and_nothing_else(found):
    def exact(changed, free):
        # independent normal entries, about their means of 0
        covariance = np.diag(np.diag(spread(free=free)))
        return quadratic_covariance(covariance, changed)

    # the moments of the chains are known to a few per cent, and the control with them
    slack = np.hypot(found.gaussian.std_error, 0.05 * np.abs(grid(exact)))
    assert (np.abs(found.gaussian.covariance - grid(exact)) / slack).max() < 4
    apart = np.abs(found.gaussian.covariance - found.posterior.covariance)
    assert (apart > 5 * np.hypot(found.gaussian.std_error, found.posterior.std_error)).any()


def test_shuffled_draws_do_not_respond(found):
    shuffled = jax.random.permutation(KEY, found.changes, axis=2)
    value, error, _ = reweighted(found.energies[0], shuffled[0], 0.1 * NBETA)
    assert (np.abs(value) < 4 * error)[jnp.array([0, 2])].all()
    there = found.respond(0.1)
    assert abs(float(there.value[0, 2])) > 5 * float(there.std_error[0, 2])


# one program


def test_components_of_one_shape_share_their_programs(found):
    third = {"third": slt.restriction.mask(CENTER, jnp.arange(INPUTS) % 2 == 0)}
    key = jax.random.key(1)
    names = {"stiffer": OBSERVABLES["stiffer"], "held out": HELD_OUT, "softer": OBSERVABLES["softer"]}
    settings = dict(nbeta=NBETA, gamma=GAMMA, chains=16)
    slt.susceptibility(key, loss_fn, CENTER, DATA, {"first": COMPONENTS["first"]}, names, **settings)
    with compilations() as compiled:
        slt.susceptibility(key, loss_fn, CENTER, DATA, third, names, **settings)
    assert compiled == []


def test_a_mean_loss_will_do_and_inside_jit_it_is_the_same(found):
    def mean(weights, batch):
        return jnp.mean(loss_fn(weights, batch))

    def go(key, center):
        settings = dict(nbeta=NBETA, gamma=GAMMA, chains=16, draws=200, burnin=1000, controls=False)
        one = slt.susceptibility(key, mean, center, DATA, COMPONENTS, {"softer": OBSERVABLES["softer"]}, **settings)
        return one.value, one.std_error, one.ok

    value, error, good = jax.jit(go)(KEY, CENTER)
    for row in range(2):
        assert deviation(value[row, 0], np.hypot(error[row, 0], found.std_error[row, 2]), found.value[row, 2]) < 3
    assert bool(good.all())


# bad input

BAD = {
    "key": (dict(key=0), r"key: got int"),
    "no components": (dict(components={}), r"components: got the keys \[\]; pass restrictions by name, at least one"),
    "a list": (dict(components=list(COMPONENTS.values())), r"components: got a list; pass restrictions by name"),
    "a foreign component": (dict(components={"x": slt.restriction.full}), r"restriction: got a function; build one"),
    "no observables": (dict(observables={1: HELD_OUT}), r"observables: got the keys \[1\]; pass data by name"),
    "three": (dict(observables={"x": (squares, 1, 2)}), r"observables: 'x' has 3 members; pass data or a pair"),
    "an observable": (
        dict(observables={"x": (lambda w, x: w, FEATURES)}),
        r"observables: 'x': loss_fn: returned shape \(16,\) on data of 40 examples",
    ),
    "draws": (dict(draws=2), r"draws: got 2; a covariance with an error needs at least 4"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    settings, message = BAD[case]
    given = dict(key=KEY, loss_fn=loss_fn, params=CENTER, data=DATA, components=COMPONENTS, observables=OBSERVABLES)
    with pytest.raises(ValueError, match=message):
        slt.susceptibility(**(given | settings))
