"""Response where there is an answer: logistic regression by quadrature, posteriors sampled again, and two phases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import slt_jax as slt

KEY = jax.random.key(0)
#: Logistic regression: two weights, so that every mean of its posterior is a sum over a grid.
EXAMPLES = 30
_RANDOM = np.random.default_rng(1)
INPUTS = _RANDOM.normal(size=(EXAMPLES, 2))
LABELS = np.where(_RANDOM.uniform(size=EXAMPLES) < 1 / (1 + np.exp(-INPUTS @ [1.0, -0.5])), 1.0, -1.0)
HARDER = INPUTS[:20] * [2.0, 1.0], LABELS[:20]
QUERIES = _RANDOM.normal(size=(6, 2)), np.where(_RANDOM.uniform(size=6) < 0.5, 1.0, -1.0)
GAMMA = 1.0


def losses(weights, batch):
    return jnp.logaddexp(0.0, -batch[1] * (batch[0] @ weights))


def single(pair):
    return tuple(jnp.asarray(leaf, jnp.float32) for leaf in pair)


DATA, CHANGED, ASKED = single((INPUTS, LABELS)), single(HARDER), single(QUERIES)


def on(weights, pair):
    """Losses in double precision, ``(..., example)``."""
    return np.logaddexp(0.0, -pair[1] * (weights @ pair[0].T))


def slopes(weights, pair):
    """Gradients of the losses at one point, ``(example, 2)``."""
    return -(pair[1] / (1 + np.exp(pair[1] * (pair[0] @ weights))))[:, None] * pair[0]


def hessian(weights):
    share = 1 / (1 + np.exp(-INPUTS @ weights))
    return (INPUTS * (share * (1 - share))[:, None]).T @ INPUTS / EXAMPLES


def least():
    weights = np.zeros(2)
    for _ in range(50):
        weights -= np.linalg.solve(hessian(weights), slopes(weights, (INPUTS, LABELS)).mean(axis=0))
    return weights


CENTER = least()


def moments(nbeta, h=0.0, points=400):
    """Points and weights of the posterior with a share ``h`` of the data replaced: midpoints of a fine grid."""
    spread = np.linalg.inv(nbeta * hessian(CENTER) + GAMMA * np.eye(2))
    axis = (np.arange(points) + 0.5) / points * 16 - 8
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    weights = CENTER + grid @ np.linalg.cholesky(spread).T
    energy = (1 - h) * on(weights, (INPUTS, LABELS)).mean(axis=1) + h * on(weights, HARDER).mean(axis=1)
    log = -nbeta * energy - 0.5 * GAMMA * ((weights - CENTER) ** 2).sum(axis=1)
    mass = np.exp(log - log.max())
    return weights, mass / mass.sum()


def covariance(left, right, mass):
    """Of columns ``(point, row)`` and ``(point, column)``."""
    left, right = (series - mass @ series for series in (left, right))
    return (left * mass[:, None]).T @ right


def energy(weights):
    at = CENTER[None]
    return on(weights, (INPUTS, LABELS)).mean(axis=1) - on(at, (INPUTS, LABELS)).mean(axis=1)


def steady(nbeta, part=0.3):
    return slt.samplers.underdamped(
        part / np.sqrt(nbeta * np.linalg.eigvalsh(hessian(CENTER))[-1] + GAMMA), friction=0.1
    )


def settings(nbeta):
    return dict(nbeta=nbeta, gamma=GAMMA, sampler=steady(nbeta), chains=4, draws=250, burnin=200, thin=8)


def covered(value, std_error, truth):
    return float(np.mean(np.abs(np.asarray(value) - truth) <= 1.96 * np.asarray(std_error)))


# logistic regression

COLD, WARM = 1e5, 30.0


@pytest.fixture(scope="module")
def seeds():
    """Influence at a low temperature, χ of a data set and of its entries at a higher one, from a hundred seeds."""

    def one(key):
        center = jnp.asarray(CENTER, jnp.float32)
        kernel = slt.influence(key, losses, center, DATA, ASKED, **settings(COLD)).covariance()
        found = slt.susceptibility(
            key,
            losses,
            center,
            DATA,
            {"all": slt.restriction.full()},
            {"harder": CHANGED, "each": slt.response.each(CHANGED)},
            **settings(WARM),
            controls=False,
        )
        return -kernel.covariance, kernel.std_error, found.value[0], found.std_error[0]

    return [np.asarray(leaf) for leaf in jax.jit(jax.vmap(one))(jax.random.split(KEY, 100))]


def test_the_influence_of_logistic_regression_is_the_classical_one_and_the_intervals_cover(seeds):
    value, error, *_ = seeds
    ours, theirs = slopes(CENTER, (INPUTS, LABELS)), slopes(CENTER, QUERIES)
    stiffness = hessian(CENTER) + GAMMA / COLD * np.eye(2)
    classical = -ours @ np.linalg.solve(stiffness, theirs.T) / COLD
    assert 0.90 <= covered(value, error, classical) <= 0.98
    # what nearly all of the pairs have is no error of the formula: it is told from half of itself
    pooled = value.std(axis=0) / 10
    assert np.mean(np.abs(value.mean(axis=0) - classical) < 3 * pooled) > 0.97
    assert np.mean(np.abs(value.mean(axis=0) - 0.5 * classical) > 10 * pooled) > 0.8


def test_the_susceptibility_of_logistic_regression_is_the_exact_derivative(seeds):
    *_, value, error = seeds
    step = 1e-4
    ends = []
    for h in (-step, step):
        weights, mass = moments(WARM, h)
        ends.append(mass @ energy(weights))
    derivative = (ends[1] - ends[0]) / (2 * step) / WARM
    weights, mass = moments(WARM)
    apart = on(weights, HARDER) - on(weights, (INPUTS, LABELS)).mean(axis=1, keepdims=True)
    exact = -covariance(energy(weights)[:, None], np.column_stack([apart.mean(axis=1), apart]), mass)[0]
    np.testing.assert_allclose(exact[0], derivative, rtol=1e-3)
    assert 0.90 <= covered(value, error, exact) <= 0.98
    pooled = value.std(axis=0) / 10
    assert (np.abs(value.mean(axis=0) - exact) < 4 * pooled).all()
    assert np.mean(np.abs(value.mean(axis=0) - 0.5 * exact) > 4 * pooled) > 0.5


# the same posterior, changed, and sampled again


def changed(h, weights, batch):
    """A mean loss: ``(1 - h) L + h L'``."""
    return (1 - h) * jnp.mean(losses(weights, batch)) + h * jnp.mean(losses(weights, CHANGED))


def test_sampling_the_changed_posterior_gives_what_the_susceptibility_and_the_weights_say():
    center = jnp.asarray(CENTER, jnp.float32)
    found = slt.susceptibility(
        KEY,
        losses,
        center,
        DATA,
        {"all": slt.restriction.full()},
        {"harder": CHANGED},
        **dict(settings(WARM), chains=16, draws=2000),
        controls=False,
    )

    def again(h):
        posterior = slt.localise(Partial(changed, h), center, DATA, WARM, GAMMA)
        trace = slt.sample(
            jax.random.key(1),
            steady(WARM),
            posterior,
            DATA,
            chains=16,
            draws=2000,
            burnin=200,
            thin=8,
            observe=lambda w: jnp.mean(losses(w, DATA) - losses(center, DATA)),
        )
        return jnp.mean(trace.observables), slt.diagnostics.mcse(trace.observables)

    strengths = jnp.array([-0.1, 0.1, 0.3, 0.0])
    means, errors = (np.asarray(leaf) for leaf in jax.jit(jax.vmap(again))(strengths))
    # exact beside both, so that neither can lean on the other
    exact = np.array([mass @ energy(weights) for weights, mass in (moments(WARM, float(h)) for h in strengths)])
    assert (np.abs(means - exact) < 4 * errors).all()
    slope, slope_error = (means[1] - means[0]) / 0.2, np.hypot(errors[0], errors[1]) / 0.2
    own, own_error = WARM * float(found.value[0, 0]), WARM * float(found.std_error[0, 0])
    assert abs(slope - own) < 3 * np.hypot(slope_error, own_error)
    assert abs(own) > 5 * own_error
    finite = found.respond(0.3)
    assert bool(finite.ok[0, 0])
    resampled, error = means[2] - means[3], np.hypot(errors[2], errors[3])
    assert abs(float(finite.value[0, 0]) - resampled) < 3 * np.hypot(error, float(finite.std_error[0, 0]))
    # and it is no straight line
    assert abs(float(finite.value[0, 0]) - (exact[2] - exact[3])) < 3 * float(finite.std_error[0, 0])
    assert abs(0.3 * own - (exact[2] - exact[3])) > 3 * float(finite.std_error[0, 0])


# two phases

#: Height between two wells, and how far each token tells them apart, in nats: of both signs.
NBETA, BARRIER = 1.0, 2.0
TOLD = np.array([[1.0, -0.6, 0.0], [0.4, -0.2, 0.8]])
TILTS = np.array([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0])


def side(w):
    """-1 in one well and 1 in the other."""
    return jnp.tanh(4 * w)


def tokens(weight, batch):
    """Two wells, a tilt that moves weight from one to the other, and what each token tells of them: ``(B, T)``."""
    told, tilt = batch
    wells = BARRIER * (weight**2 - 1) ** 2
    return wells + 0.5 * side(weight) * (told + tilt[:, None])


def exactly(tilt):
    """Weight of the upper phase, and the losses of the tokens with the mass of each point."""
    grid = np.linspace(-2.5, 2.5, 4001)
    told = TOLD - TOLD.mean() + tilt
    series = BARRIER * (grid**2 - 1)[:, None] ** 2 + 0.5 * np.tanh(4 * grid)[:, None] * told.reshape(1, -1)
    log = -NBETA * series.mean(axis=1) - 0.5 * 1e-3 * grid**2
    mass = np.exp(log - log.max())
    mass /= mass.sum()
    return mass[grid > 0].sum(), series, mass


@pytest.fixture(scope="module")
def phases():
    """χ and the loss kernel of every token, for every tilt."""

    def one(key, tilt):
        data = jnp.asarray(TOLD - TOLD.mean(), jnp.float32), jnp.broadcast_to(tilt, (2,))
        run = dict(nbeta=NBETA, gamma=1e-3, sampler=slt.samplers.underdamped(0.05, friction=0.1))
        run |= dict(chains=16, draws=1500, burnin=500, thin=16)
        kernel = slt.influence(key, tokens, jnp.float32(0.0), data, **run).covariance()
        found = slt.susceptibility(
            key,
            tokens,
            jnp.float32(0.0),
            data,
            {"all": slt.restriction.full()},
            {"tokens": slt.response.each(data)},
            controls=False,
            **run,
        )
        return kernel.covariance, kernel.std_error, found.value[0], found.std_error[0]

    keys = jax.random.split(KEY, len(TILTS))
    return [np.asarray(leaf) for leaf in jax.jit(jax.vmap(one))(keys, jnp.asarray(TILTS, jnp.float32))]


def test_the_loss_kernel_peaks_where_both_phases_weigh_the_same(phases):
    value, error, *_ = phases
    told = TOLD.ravel() - TOLD.mean()
    shares = []
    for number, tilt in enumerate(TILTS):
        share, series, mass = exactly(tilt)
        shares.append(share)
        truth = covariance(series, series, mass)
        assert (np.abs(value[number] - truth) < 4 * error[number]).all()
        # nearly all of what two tokens share of the sides is the coin's: π (1 - π) Δ_i Δ_j, once what every token has
        # of the wells and the tilt is taken away
        apart = series - series.mean(axis=1, keepdims=True)
        coin = share * (1 - share) * np.outer(told, told)
        np.testing.assert_allclose(covariance(apart, apart, mass), coin, atol=0.2 * np.abs(coin).max())
    assert abs(shares[3] - 0.5) < 1e-3
    assert np.ptp(shares) > 0.5
    # of the kernel that was measured, without what every token has
    center = np.eye(6) - 1 / 6
    strength = np.array([np.trace(center @ one @ center) for one in value])
    assert int(np.argmax(strength)) == 3
    assert (np.diff(strength[:4]) > 0).all()
    assert (np.diff(strength[3:]) < 0).all()
    # tokens that prefer different phases go against each other
    assert (center @ value[3] @ center)[0, 1] < -5 * error[3][0, 1]


def test_the_susceptibility_of_a_token_flips_where_the_phases_change_places(phases):
    *_, value, error = phases
    told = TOLD.ravel() - TOLD.mean()
    for number, tilt in enumerate(TILTS):
        _, series, mass = exactly(tilt)
        mean = series.mean(axis=1, keepdims=True)
        truth = -covariance(mean, series - mean, mass)[0]
        assert (np.abs(value[number] - truth) < 4 * error[number]).all()
    # χ_i = -π (1 - π) ΔL (Δ_i - ΔL): its sign is that of the tilt, and at no tilt there is none
    sure = np.abs(value) > 4 * error
    clear = np.abs(told) > 0.5
    for number, tilt in enumerate(TILTS):
        if abs(tilt) == 1.0:
            assert sure[number, clear].all()
            np.testing.assert_array_equal(np.sign(value[number, clear]), -np.sign(tilt) * np.sign(told[clear]))
    assert (np.abs(value[3]) < 4 * error[3]).all()
