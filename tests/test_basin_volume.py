"""Basin volumes against ellipsoids, quartics and an area by quadrature; what is only a bound says so."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import BASELINE, compilations, deviation

import slt_jax as slt
from slt_jax import curvature, tree

EPSILON = 1e-3


def log_ball(size):
    return size / 2 * math.log(math.pi) - math.lgamma(size / 2 + 1)


def ellipsoid(size, decades=3.0, seed=0):
    """A quadratic in random axes: its loss, the axes as rows, their curvatures, and the exact log volume."""
    axes = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0].T
    h = 10.0 ** -np.linspace(0, decades, size)
    hessian = jnp.asarray(axes.T * h @ axes, jnp.float32)
    exact = log_ball(size) + 0.5 * np.sum(np.log(2 * EPSILON / h))
    return lambda w, x: 0.5 * w @ hessian @ w + x, axes, h, exact


def measure(key, loss_fn, center, **settings):
    return slt.basin_volume(key, loss_fn, center, BASELINE, **{"threshold": EPSILON, **settings})


@pytest.mark.parametrize("size", [1, 2, 12, 50])
def test_the_volume_of_an_ellipsoid_is_exact_and_has_no_variance(size, key):
    loss_fn, _, _, exact = ellipsoid(size)
    volume = measure(key, loss_fn, jnp.zeros(size), directions=32)
    assert deviation(volume.log_volume, volume.std_error, exact) < 3
    assert float(volume.std_error) < 2e-4 * size
    assert float(volume.effective_sample_size) == pytest.approx(32, rel=1e-3)
    assert bool(volume.ok)


def rounded(axes, h, noise, seed=1):
    """The preconditioner with radii that are wrong by random factors of this size."""
    wrong = np.exp(noise * np.random.default_rng(seed).normal(size=len(h)))
    return curvature.stretched(jnp.asarray(axes, jnp.float32), jnp.asarray(h**-0.5 * wrong, jnp.float32), 1.0)


PRECONDITIONERS = {
    "right": (lambda axes, h: rounded(axes, h, 0.0), True),
    "nearly": (lambda axes, h: rounded(axes, h, 0.1), True),
    "isotropic": (lambda axes, h: curvature.isotropic(0.3), None),
    "diagonal": (lambda axes, h: curvature.diagonal(jnp.asarray(((axes.T * h) @ axes).diagonal() ** -0.5)), None),
}


@pytest.mark.parametrize("name", PRECONDITIONERS)
@pytest.mark.parametrize("seed", range(3))
def test_any_preconditioner_is_right_on_average(name, seed):
    make, healthy = PRECONDITIONERS[name]
    loss_fn, axes, h, exact = ellipsoid(4, decades=1.0)
    preconditioner = make(axes, h)
    volume = measure(jax.random.key(seed), loss_fn, jnp.zeros(4), preconditioner=preconditioner, directions=1024)
    assert deviation(volume.log_volume, volume.std_error, exact) < 4
    if healthy:
        assert bool(volume.ok)


@pytest.mark.parametrize("seed", range(3))
def test_a_bad_preconditioner_in_fifty_dimensions_is_a_bound_far_below_and_says_so(seed):
    loss_fn, axes, h, exact = ellipsoid(50)
    volume = measure(jax.random.key(seed), loss_fn, jnp.zeros(50), preconditioner=curvature.isotropic())
    assert float(volume.log_volume) < exact - 10
    assert not bool(volume.ok)
    assert float(volume.effective_sample_size) < 20
    assert "only a lower bound" in volume.explain()
    better = measure(jax.random.key(seed), loss_fn, jnp.zeros(50), preconditioner=rounded(axes, h, 0.1))
    assert bool(better.ok)
    assert abs(float(better.log_volume) - exact) < 0.5


def test_a_quartic_is_not_an_ellipsoid_and_still_right(key):
    """``vol{Σ w⁴ < ε} = (2 Γ(5/4))^d ε^{d/4} / Γ(1 + d/4)``; the Hessian is 0, its axes are measured."""
    size = 4
    exact = size * math.log(2 * math.gamma(1.25)) - math.lgamma(1 + size / 4) + size / 4 * math.log(EPSILON)
    volume = measure(key, lambda w, x: jnp.sum(w**4) + x, jnp.zeros(size))
    assert deviation(volume.log_volume, volume.std_error, exact) < 4
    assert bool(volume.ok)


def test_the_volume_grows_with_the_threshold_as_half_the_dimension(key):
    loss_fn, *_ = ellipsoid(12)
    low, high = (measure(key, loss_fn, jnp.zeros(12), threshold=e, directions=32) for e in (EPSILON, 10 * EPSILON))
    slope = float(high.log_volume - low.log_volume) / math.log(10)
    assert slope == pytest.approx(6.0, abs=5 * float(jnp.hypot(low.std_error, high.std_error)))


def test_arms_that_meet_no_wall_end_at_the_reach_and_are_reported(key):
    """``|xy| < √ε`` within a disc, by quadrature in the angle."""
    reach = 2.0
    angles = (np.arange(2_000_000) + 0.5) * 2 * np.pi / 2_000_000
    squared = np.minimum(reach**2, math.sqrt(EPSILON) / np.abs(np.sin(angles) * np.cos(angles)))
    exact = math.log(np.pi * np.mean(squared))
    volume = measure(key, lambda w, x: w[0] ** 2 * w[1] ** 2 + x, jnp.zeros(2), reach=reach, directions=2048)
    assert deviation(volume.log_volume, volume.std_error, exact) < 4
    assert float(volume.reached) > 0.1
    assert not bool(volume.ok)
    assert "no wall up to reach" in volume.explain()


def test_only_what_the_centre_sees_is_counted(key):
    """Two intervals, ``|w| < 1`` and one behind a wall."""

    def loss_fn(w, x):
        return jnp.where(jnp.abs(w[0]) < 1, 0.0, jnp.where(jnp.abs(w[0] - 3) < 1, 0.0, 1.0)) + x

    volume = measure(key, loss_fn, jnp.zeros(1), threshold=0.5, directions=32, reach=100.0)
    assert float(jnp.exp(volume.log_volume)) == pytest.approx(2.0, rel=1e-4)


def test_a_loss_that_is_not_finite_is_a_wall(key):
    volume = measure(
        key, lambda w, x: -jnp.log(1 - w[0] ** 2) + x, jnp.zeros(1), threshold=50.0, directions=32, reach=100.0
    )
    assert float(jnp.exp(volume.log_volume)) == pytest.approx(2.0, rel=1e-3)


def test_beyond_the_axes_that_are_measured_the_rest_is_a_ball(key):
    """520 directions: 20 stiff ones among equals."""
    h = jnp.concatenate([jnp.linspace(2.0, 5.0, 20), jnp.full(500, 0.01)])
    exact = log_ball(520) + 0.5 * float(np.sum(np.log(2 * EPSILON / np.asarray(h, np.float64))))
    volume = measure(key, lambda w, x: 0.5 * jnp.sum(h * w**2) + x, jnp.zeros(520), directions=32)
    assert deviation(volume.log_volume, volume.std_error, exact) < 4
    assert float(volume.std_error) < 0.1
    assert bool(volume.ok)


def test_only_free_directions_have_a_volume(key):
    params = {"a": jnp.zeros(3), "b": jnp.zeros(5)}
    h = jnp.array([1.0, 2.0, 4.0])
    loss_fn = lambda w, x: 0.5 * jnp.sum(h * w["a"] ** 2) + 100 * jnp.sum(w["b"] ** 2) + x  # noqa: E731
    free = slt.restriction.paths(params, "a")
    volume = measure(key, loss_fn, params, restriction=free, directions=32)
    exact = log_ball(3) + 1.5 * math.log(2 * EPSILON) - 0.5 * math.log(8.0)
    assert deviation(volume.log_volume, volume.std_error, exact) < 3
    assert int(volume.dimension) == 3


def test_a_span_measures_in_units_of_its_basis(key):
    loss_fn = lambda w, x: 0.5 * jnp.sum(w**2) + x  # noqa: E731
    free = slt.restriction.span(jnp.array([[2.0, 0.0, 0.0], [0.0, 0.5, 0.0]]))
    volume = measure(key, loss_fn, jnp.zeros(3), restriction=free, directions=32)
    assert deviation(volume.log_volume, volume.std_error, log_ball(2) + math.log(2 * EPSILON)) < 3


def test_it_works_inside_jit_and_for_trees_of_half_precision(key):
    params = {"w": jnp.zeros((2, 2), jnp.bfloat16), "b": jnp.zeros(2, jnp.float32)}
    loss_fn = lambda w, x: 0.5 * tree.norm_squared(w) + x  # noqa: E731
    inside = jax.jit(lambda key, params, data: slt.basin_volume(key, loss_fn, params, data, threshold=0.1).log_volume)
    exact = log_ball(6) + 3 * math.log(0.2)
    assert float(inside(key, params, BASELINE)) == pytest.approx(exact, abs=1e-3)


BAD = {
    "threshold": ({"threshold": 0.0}, "threshold: got 0.0; it must be finite and positive"),
    "threshold that is not finite": ({"threshold": float("nan")}, "threshold: got nan"),
    "reach": ({"reach": -1.0}, "reach: got -1.0"),
    "directions": ({"directions": 0}, "directions: got 0; pass an integer of at least 1"),
    "another size": ({"preconditioner": curvature.diagonal(jnp.ones(3))}, "preconditioner: has 3 radii for 2"),
    "another basis": (
        {"preconditioner": curvature.stretched(jnp.ones((1, 3)), jnp.ones(1), 1.0)},
        r"preconditioner: a basis of shape \(1, 3\) does not fit 1 radii in 2",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case, key):
    settings, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        measure(key, lambda w, x: jnp.sum(w**2) + x, jnp.zeros(2), **settings)


def test_bad_numbers_are_named_before_anything_is_compiled(key):
    center = jnp.zeros(2)
    with compilations() as compiled:
        for case in ("threshold", "directions"):
            with pytest.raises(ValueError, match=case):
                measure(key, lambda w, x: jnp.sum(w**2) + x, center, **BAD[case][0])
    assert compiled == []


@pytest.mark.parametrize("make", [lambda: curvature.isotropic(0.0), lambda: curvature.diagonal(jnp.array([1.0, -1.0]))])
def test_a_radius_that_is_not_positive_is_refused(make):
    with pytest.raises(ValueError, match="must be finite and positive"):
        make()
