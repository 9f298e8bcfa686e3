"""λ and m out of exact flows with noise on them: the right answer, or none."""

import numpy as np
import pytest

import slt_jax as slt
from slt_jax.ladder import fit_exponent

NBETAS = np.geomspace(1.0, 1e13, 22)
CHAINS = 32


def noisy(exact, error, seed=0):
    generator = np.random.default_rng(seed)
    return exact[:, None] * (1 + error * CHAINS**0.5 * generator.normal(size=(len(exact), CHAINS)))


def fitted(exact, error=1e-3, seed=0):
    chains = noisy(np.asarray(exact), error, seed)
    return fit_exponent(NBETAS, chains, chains.std(axis=1, ddof=1) / CHAINS**0.5)


@pytest.mark.parametrize(
    ("powers", "coefficient", "multiplicity"),
    [([1], 0.5, 1), ([2], 0.25, 1), ([1, 2], 0.25, 1), ([1, 1], 0.5, 2), ([1, 1, 1], 0.5, 3)],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_normal_crossing_is_recognised_from_its_exact_energies(powers, coefficient, multiplicity, seed):
    exact = [slt.truths.normal_crossing_energy(powers, nbeta, 1.0) for nbeta in NBETAS]
    found = fitted(exact, seed=seed)
    assert abs(found.learning_coefficient / coefficient - 1) < 0.02
    assert abs(found.learning_coefficient - coefficient) < 4 * found.std_error
    assert found.multiplicity in (multiplicity, None)
    assert found.weights[multiplicity - 1] > 0.5
    if multiplicity < 3:
        assert found.multiplicity == multiplicity
    # one temperature alone is off by more than the fit says
    assert multiplicity == 1 or abs(exact[-1] - coefficient) > 4 * found.std_error


def test_two_poles_that_are_far_apart_are_not_taken_for_a_multiplicity():
    size = 2 * NBETAS**-0.25
    found = fitted(0.5 + 0.25 * size / (1 + size))
    assert found.multiplicity == 1
    assert found.candidates[0].name in ("two poles", "one pole, m = 1")
    assert abs(found.learning_coefficient - 0.5) < 4 * found.std_error


def test_two_poles_that_are_near_each_other_leave_it_open_or_right():
    size = 3 * NBETAS**-0.06
    found = fitted(0.5 + 0.06 * size / (1 + size))
    assert found.multiplicity in (1, None)


def test_little_data_resolves_nothing_and_says_so():
    exact = [slt.truths.normal_crossing_energy([1, 1], nbeta, 1.0) for nbeta in NBETAS]
    found = fitted(exact, error=0.05)
    assert found.multiplicity is None
    assert "unresolved" in found.explain()
    assert abs(found.learning_coefficient - 0.5) < 3 * found.std_error
    assert abs(sum(found.weights) - 1) < 1e-9


def test_candidates_come_by_weight_and_say_what_they_are():
    found = fitted([slt.truths.normal_crossing_energy([1, 1], nbeta, 1.0) for nbeta in NBETAS])
    weights = [candidate.weight for candidate in found.candidates]
    assert weights == sorted(weights, reverse=True)
    assert {candidate.name for candidate in found.candidates} == {
        "two poles",
        *(f"one pole, m = {m}" for m in (1, 2, 3, 4)),
    }
    assert "m = 2" in found.explain()


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(ValueError, match="5 rungs"):
        fit_exponent(NBETAS[:5], np.ones((5, 4)), np.ones(5))
    with pytest.raises(ValueError, match="not finite"):
        fit_exponent(NBETAS, np.full((22, 4), np.nan), np.ones(22))
