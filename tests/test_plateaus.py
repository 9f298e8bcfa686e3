"""Fixed points of a flow and the crossovers between them, on flows known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import slt_jax as slt
from slt_jax.ladder import Flow

NBETAS = np.geomspace(1e1, 1e13, 25)


def flow_of(nbetas, value, velocity, error=1e-3, usable=None):
    count = len(nbetas)
    fields = dict.fromkeys(Flow._fields)
    fields |= dict(nbetas=nbetas, value=value, velocity=velocity)
    fields |= dict(std_error=np.full(count, error), velocity_error=np.full(count, error))
    return Flow(**fields | {"usable": np.ones(count, bool) if usable is None else usable})


def passage(nbetas, before, after, middle):
    """Two directions of energy ``x⁴`` and ``x²`` in turn: λ_eff as a logistic curve, and its slope."""
    share = nbetas / (nbetas + middle)
    return before + (after - before) * share, (after - before) * share * (1 - share)


def test_two_plateaus_and_the_crossover_between_them():
    found = slt.plateaus(flow_of(NBETAS, *passage(NBETAS, 0.5, 1.0, 3e6)))
    assert [round(one.value, 2) for one in found.plateaus] == [0.5, 1.0]
    (turn,) = found.crossovers
    assert turn.low < 3e6 < turn.high
    assert abs(np.log(turn.nbeta / 3e6)) < 0.1
    assert turn.begins < turn.nbeta < turn.ends
    # a logistic curve goes from a quarter to three quarters in log 9
    assert abs(np.log(turn.ends / turn.begins) - np.log(9)) < 0.3
    assert "crossover" in found.explain()


def test_the_interval_of_a_crossover_is_as_wide_as_the_noise_makes_it():
    generator = np.random.default_rng(0)
    value, velocity = passage(NBETAS, 0.5, 1.0, 3e6)
    covered = 0
    for _ in range(100):
        noisy = flow_of(NBETAS, value + 0.01 * generator.normal(size=len(value)), velocity, error=0.01)
        turn = slt.plateaus(noisy).crossovers[0]
        covered += turn.low < 3e6 < turn.high
    assert covered >= 85


def test_a_flow_that_never_rests_has_no_plateau():
    found = slt.plateaus(flow_of(NBETAS, 0.02 * np.log(NBETAS), np.full(25, 0.02), error=1e-4))
    assert all(one.coldest / one.hottest < 1e6 for one in found.plateaus)
    assert not [one for one in found.plateaus if one.value < 0.9]


def test_one_plateau_has_no_crossover_and_says_its_error():
    generator = np.random.default_rng(1)
    found = slt.plateaus(flow_of(NBETAS, 2 + 0.01 * generator.normal(size=25), np.zeros(25), error=0.01))
    (stay,) = found.plateaus
    assert not found.crossovers
    assert abs(stay.value - 2) < 0.02
    assert (stay.hottest, stay.coldest) == (pytest.approx(1e1), pytest.approx(1e13))


def test_rungs_that_boiled_are_not_looked_at():
    value, velocity = passage(NBETAS, 0.5, 1.0, 3e6)
    value[:3], usable = 50.0, np.arange(25) > 2
    found = slt.plateaus(flow_of(NBETAS, value, velocity, usable=usable))
    assert len(found.plateaus) == 2
    with pytest.raises(ValueError, match="usable rungs"):
        slt.plateaus(flow_of(NBETAS, value, velocity, usable=np.arange(25) == 0))


def test_a_measured_flow_rests_where_quadrature_does():
    """``1e-4 x² + x⁶ + 1e-6 y² + y⁴``: 5/12 while both high powers rule, 3/4 once x² does, and on to 1."""

    def loss_fn(weights, batch):
        del batch
        return 1e-4 * weights[0] ** 2 + weights[0] ** 6 + 1e-6 * weights[1] ** 2 + weights[1] ** 4

    nbetas = 10.0 ** np.arange(2, 11)
    flow = slt.flow(jax.random.key(0), loss_fn, jnp.zeros(2), jnp.zeros((100, 0)), nbetas=nbetas, gamma=1e-2)
    exact = [separate(nbeta, 1e-2) for nbeta in nbetas]
    assert flow.ok.all(), flow.explain()
    assert (np.abs(flow.value / exact - 1) < 0.02).all()
    assert (np.abs(flow.value - exact) < 4 * flow.std_error).all()
    found = slt.plateaus(flow)
    np.testing.assert_allclose([one.value for one in found.plateaus], [5 / 12, 3 / 4], rtol=0.02)
    # half way between the two values the exact flow is at this temperature
    fine = np.geomspace(1e4, 1e8, 400)
    middle = np.interp(
        0.5 * (found.plateaus[0].value + found.plateaus[1].value), [separate(n, 1e-2) for n in fine], fine
    )
    (turn,) = found.crossovers
    assert abs(np.log(turn.nbeta / middle)) < 0.3


def separate(nbeta, gamma):
    """The two coordinates are independent: an integral in the logarithm of each."""
    logs = np.linspace(-30, 5, 40_001)
    size = np.exp(logs)
    total = 0.0
    for low, high, power in ((1e-4, 1.0, 6), (1e-6, 1.0, 4)):
        energy = nbeta * (low * size**2 + high * size**power)
        weight = size * np.exp(-energy - 0.5 * gamma * size**2)
        total += np.trapezoid(weight * np.where(weight > 0, energy, 0.0), logs) / np.trapezoid(weight, logs)
    return total
