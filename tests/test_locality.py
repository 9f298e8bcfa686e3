"""Where a phase lives: exact shares on planted transitions, what each kind of directions misses, and chance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slt_jax import curvature, restriction
from slt_jax.problem import Problem
from slt_jax.spectroscopy import (
    Directions,
    Subject,
    Subloss,
    along,
    by_scores,
    coefficient_locality,
    largest_moves,
    largest_moves_seen,
    llc_probe,
    locality,
    random_coordinates,
    random_subspace,
    steps_between,
    units,
)
from slt_jax.spectroscopy.directions import default_counts
from slt_jax.spectroscopy.nulls import default_nulls

D, K0 = 20, 3


def quadratic(hessian, target):
    """``½ (w - w*)ᵀ H (w - w*)``, the same for each of 4 examples."""

    def loss_fn(w, batch):
        return 0.5 * batch @ jnp.array([1.0]) * ((w - target) @ hessian @ (w - target))

    return Problem(loss_fn, jnp.zeros(len(target)), jnp.ones((4, 1)))


def planted(drift=0.0):
    """K0 coordinates reach their targets; all others, which no example sees, drift by ``drift``."""
    after = jnp.where(jnp.arange(D) < K0, jnp.array([1.0, 2.0, 3.0, *[0.0] * (D - 3)]), drift)
    inputs = jax.random.normal(jax.random.key(0), (200, D)) * (jnp.arange(D) < K0)[None]

    def loss_fn(w, batch):
        return 0.5 * (batch["x"] @ w - batch["y"]) ** 2

    return Problem(loss_fn, jnp.zeros(D), {"x": inputs, "y": inputs @ after}), jnp.zeros(D), after


def rotation(seed=1, size=D):
    return jnp.linalg.qr(jax.random.normal(jax.random.key(seed), (size, size)))[0]


# --- shares of the loss


def test_a_transition_planted_in_few_coordinates_is_explained_by_these_and_exactly_so(key):
    target = jnp.where(jnp.arange(D) < K0, jnp.array([1.0, 2.0, 3.0, *[0.0] * (D - 3)]), 0.0)
    problem = quadratic(jnp.diag(jnp.arange(1.0, D + 1)), target)
    kinds = {"moves": largest_moves(jnp.zeros(D), target)}
    found = locality(key, problem, jnp.zeros(D), target, kinds, counts=[1, 2, 3, D])
    # |Δ| = 3, 2, 1 in curvatures 3, 2, 1: Σ h Δ² = 27 + 8 + 1
    np.testing.assert_allclose(found.shares[0, 0], [27 / 36, 35 / 36, 1, 1], rtol=1e-6)
    assert found.shares[0, 0, -1] == 1.0
    assert found.share_errors[0, 0, -1] == 0.0
    assert (found.enough("all", "moves"), found.enough("all", "moves", level=0.99)) == (2, 3)
    assert found.gains[0] == pytest.approx(18)


def test_the_largest_moves_fail_where_unseen_weights_drift_and_fisher_information_finds_the_seen():
    problem, before, after = planted(drift=10.0)
    kinds = {
        "moves": largest_moves(before, after),
        "seen": largest_moves_seen(problem.loss_fn, before, after, problem.data),
    }
    found = locality(jax.random.key(1), problem, before, after, kinds, counts=[K0, D - K0, D])
    np.testing.assert_allclose(found.curve("all", "seen")[0], 1, rtol=1e-6)
    # the drift comes first: all of it together explains nothing
    np.testing.assert_allclose(found.curve("all", "moves")[0], [0, 0, 1], atol=1e-6)
    assert (found.enough("all", "seen"), found.enough("all", "moves")) == (K0, D)


def test_a_transition_along_one_rotated_direction_is_one_direction_and_nearly_all_coordinates():
    direction = jnp.where(jnp.arange(D) % 2 == 0, 1.0, -1.0) / jnp.sqrt(D)
    ends = jnp.zeros(D), 3 * direction
    # only this direction is curved, so that coordinates act together: k of d explain 1 - (1 - k/d)²
    problem = quadratic(jnp.outer(direction, direction), ends[1])
    kinds = {
        "difference": steps_between(ends),
        "span": along(ends[0], restriction.differences(*ends)),
        "principal": along(ends[0], restriction.principal_directions([ends[0], 0.4 * ends[1], ends[1]]).restriction),
        "stiffest": along(ends[0], curvature.top_directions(jax.random.key(0), *problem, 2).restriction),
        "moves": largest_moves(*ends),
        "beside": along(ends[0], restriction.span(jnp.ones((1, D)))),
    }
    found = locality(jax.random.key(1), problem, *ends, kinds, counts=range(1, D + 1))
    for kind in ("difference", "span", "principal", "stiffest"):
        assert found.enough("all", kind) == 1, kind
        assert found.curve("all", kind)[0][0] == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(found.curve("all", "moves")[0], 1 - (1 - np.arange(1, D + 1) / D) ** 2, atol=1e-5)
    assert found.enough("all", "moves") == 16
    # a direction beside it explains nothing, and there is no second
    beside = found.curve("all", "beside")[0]
    assert abs(beside[0]) < 1e-5
    assert np.isnan(beside[1:]).all()
    assert found.enough("all", "beside") is None


@pytest.mark.parametrize("stiff", [False, True])
def test_chance_explains_what_the_formulas_say(stiff):
    """Equal curvatures: k/d. Others: the two formulas in the docstrings of the nulls."""
    size, draws = 12, 400
    spread = jnp.where(stiff, jnp.linspace(0.1, 3.0, size) ** 3, jnp.ones(size))
    axes = rotation(2, size)
    hessian = axes @ jnp.diag(spread) @ axes.T
    target = axes @ (jnp.arange(1.0, size + 1))
    problem = quadratic(hessian, target)
    ends = jnp.zeros(size), target
    counts = np.array([1, 4, 9, size])
    found = locality(jax.random.key(3), problem, *ends, {"moves": largest_moves(*ends)}, counts=counts, draws=draws)
    total = float(target @ hessian @ target)
    own = float(jnp.sum(jnp.diag(hessian) * target**2)) / total
    softness = float(jnp.trace(hessian) * target @ target) / (size * total)
    left = size - counts
    exact = {
        "random coordinates": 1 - left / size * own - left * (left - 1) / (size * (size - 1)) * (1 - own),
        "random subspace": 1
        - left * (left + 2) / (size * (size + 2))
        - left * counts * (size * softness - 1) / (size * (size + 2) * (size - 1)),
    }
    for name, wanted in exact.items():
        mean, spread_over_draws = found.curve("all", name)
        assert (np.abs(mean - wanted)[:-1] < 4 * spread_over_draws[:-1] / np.sqrt(draws)).all(), name
        assert mean[-1] == pytest.approx(1, abs=1e-5)
    if not stiff:
        np.testing.assert_allclose(exact["random subspace"], counts / size, rtol=1e-5)
        np.testing.assert_allclose(exact["random coordinates"], counts / size, rtol=1e-5)
    else:
        # the other law would not do
        assert np.abs(exact["random subspace"] - counts / size).max() > 0.1


def test_chance_among_those_that_moved_does_better_where_few_moved():
    problem, before, after = planted()
    found = locality(jax.random.key(1), problem, before, after, {"moves": largest_moves(before, after)}, counts=[K0, D])
    assert found.curve("all", "random among the moved")[0][0] == pytest.approx(1)
    assert found.curve("all", "random coordinates")[0][0] < 0.5


def test_errors_cover_the_share_on_all_examples_and_vanish_where_examples_agree():
    """The delta method for a ratio of paired means, against shares over fresh examples."""
    after = jnp.array([1.0, 0.5, 0.25, 0.1])

    def loss_fn(w, x):
        return 0.5 * (x @ (w - after)) ** 2

    ends = jnp.zeros(4), after
    kinds = {"moves": largest_moves(*ends)}
    exact = 1 - (0.25**2 + 0.1**2) / float(after @ after)
    inside = []
    for seed in range(40):
        inputs = jax.random.normal(jax.random.key(seed), (300, 4))
        found = locality(jax.random.key(0), Problem(loss_fn, ends[0], inputs), *ends, kinds, counts=[2, 4], draws=2)
        inside.append(abs(found.shares[0, 0, 0] - exact) / found.share_errors[0, 0, 0])
    inside = np.array(inside)
    assert (inside < 1.96).mean() >= 0.85
    assert (inside < 0.2).mean() < 0.5  # nor are they far too large
    same = locality(
        jax.random.key(0), Problem(loss_fn, ends[0], jnp.ones((9, 4))), *ends, kinds, counts=[2, 4], draws=2
    )
    assert same.share_errors[0, 0, 0] < 1e-6


def test_a_loss_that_is_a_mean_has_shares_without_errors():
    problem, before, after = planted()
    mean = Problem(lambda w, batch: jnp.mean(problem.loss_fn(w, batch)), before, problem.data)
    kinds = {"moves": largest_moves(before, after)}
    found = locality(jax.random.key(1), mean, before, after, kinds, counts=[K0, D])
    np.testing.assert_allclose(found.shares[0, 0], 1, rtol=1e-6)
    assert np.isnan(found.share_errors[0, 0]).all()
    assert found.enough_interval("all", "moves") == (K0, K0)


# --- sublosses


def two_parts():
    problem, before, after = planted()

    def first(w, batch):
        return 0.5 * (batch["x"][:, 0] * (w[0] - after[0])) ** 2

    def flat(w, batch):
        return jnp.ones(len(batch["x"])) + 0 * w[0]

    parts = {"first weight": Subloss(first, problem.data), "unmoved": Subloss(flat, problem.data)}
    return Subject(problem, sublosses=parts), before, after


def test_each_subloss_has_its_own_shares_and_those_that_gained_nothing_are_left_out():
    subject, before, after = two_parts()
    kinds = {"first": by_scores(before, -jnp.arange(float(D)))}
    found = locality(jax.random.key(1), subject, before, after, kinds, counts=[1, 2, D])
    assert found.sublosses == ("all", "first weight")
    np.testing.assert_allclose(found.curve("first weight", "first")[0], 1, rtol=1e-6)
    assert found.curve("all", "first")[0][0] < 0.3
    with pytest.raises(ValueError, match="'unmoved' gained nothing"):
        locality(jax.random.key(1), subject, before, after, kinds, sublosses=["first weight", "unmoved"])
    # backwards nothing gains
    with pytest.raises(ValueError, match="gained nothing"):
        locality(jax.random.key(1), subject, after, before, kinds)


def test_explain_says_how_many_of_how_many_and_what_chance_needs():
    subject, before, after = two_parts()
    kinds = {"moves": largest_moves(before, after), "one": along(before, restriction.span(jnp.eye(D)[:1]))}
    said = locality(jax.random.key(1), subject, before, after, kinds, sublosses=["all"]).explain()
    assert said.startswith("whole loss: of a gain of ")
    assert "of 20 directions: moves 3 (0.15 of all); one none (at most " in said
    assert "By chance: random coordinates 18 (0.9 of all); random among the moved 3 (0.15 of all)" in said


# --- kinds


def tree_of_two():
    before = {"a": jnp.zeros((2, 2)), "b": jnp.zeros(3)}
    after = {"a": jnp.array([[0.0, 1.0], [2.0, 3.0]]), "b": jnp.array([0.5, 0.0, 2.5])}
    return before, after


def kinds_of_a_tree():
    before, after = tree_of_two()
    middle = jax.tree.map(lambda leaf: 0.3 * leaf**2, after)
    trajectory = [before, middle, after]
    return {
        "moves": largest_moves(before, after),
        "units": units(before, after, restriction.layers(before)),
        "steps": steps_between(trajectory),
        "principal": along(before, restriction.principal_directions(trajectory).restriction),
        "random coordinates": random_coordinates(jax.random.key(0), before),
        "random subspace": random_subspace(jax.random.key(0), before, 5),
    }


@pytest.mark.parametrize("name", list(kinds_of_a_tree()))
def test_every_kind_is_a_nested_family_of_projections(name):
    """What the contract of a kind says: P_k P_k = P_k, |P_k Δ| grows, and its restriction lifts to P_k Δ."""
    before, after = tree_of_two()
    kind = kinds_of_a_tree()[name]

    def flat(tree):
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])

    length = 0.0
    for count in range(1, kind.most + 1):
        moved = kind.moved(before, after, count)
        np.testing.assert_allclose(flat(kind.moved(before, moved, count)), flat(moved), atol=1e-6)
        np.testing.assert_allclose(flat(kind.moved(before, moved, kind.most)), flat(moved), atol=1e-6)
        now = np.linalg.norm(flat(moved))
        assert now >= length - 1e-6
        length = now
        if name == "units" and count < 4:
            with pytest.raises(ValueError, match="the first unit has more than"):
                kind.restriction(count)
            continue
        free = kind.restriction(count)
        restriction.check(free, before)
        pull = jax.vjp(lambda z, free=free: free.lift(before, z), free.origin(before))[1]
        again = free.lift(before, pull(after)[0])
        np.testing.assert_allclose(flat(again), flat(moved), atol=1e-5)
    if kind.most == 7:
        np.testing.assert_array_equal(flat(kind.moved(before, after, 7)), flat(after))


def test_a_count_may_be_traced():
    before, after = tree_of_two()
    kind = largest_moves(before, after)
    moved = jax.jit(lambda kind, count: kind.moved(before, after, count))(kind, 2)
    assert moved["a"].tolist() == [[0.0, 0.0], [0.0, 3.0]]
    assert moved["b"].tolist() == [0.0, 0.0, 2.5]


def test_restrictions_of_one_number_have_one_shape():
    before, after = tree_of_two()
    shapes = [
        jax.tree.map(jnp.shape, kind.restriction(2))
        for kind in (largest_moves(before, after), random_coordinates(jax.random.key(1), before))
    ]
    assert jax.tree.leaves(shapes[0]) == jax.tree.leaves(shapes[1])


def test_units_come_in_whole_and_the_densest_first():
    before, after = tree_of_two()
    kind = units(before, after, restriction.layers(before))
    # mean squares 14/4 and 6.5/3
    assert [float(jnp.sum(kind.moved(before, after, count)["a"])) for count in (3, 4, 7)] == [0.0, 6.0, 6.0]
    assert [float(jnp.sum(kind.moved(before, after, count)["b"])) for count in (3, 4, 6, 7)] == [0, 0, 0, 3.0]


def test_a_random_subspace_is_orthonormal_and_uniform():
    before, size = jnp.zeros(30), 30
    basis = jax.tree.leaves(random_subspace(jax.random.key(0), before, size).moved)[0][:size]
    np.testing.assert_allclose(basis @ basis.T, np.eye(size), atol=1e-5)
    firsts = jax.vmap(lambda key: jax.tree.leaves(random_subspace(key, before, 2).moved)[0][1])(
        jax.random.split(jax.random.key(1), 500)
    )
    # of a point uniform on the sphere, a squared coordinate has variance 2 (d - 1) / (d² (d + 2))
    error = np.sqrt(2 * (size - 1) / (size**2 * (size + 2)) / 500)
    squares = np.mean(np.square(firsts), axis=0)
    assert np.abs(squares - 1 / size).max() < 4 * error
    lopsided = np.square(np.asarray(firsts) * np.linspace(0.7, 1.3, size)[None, :])
    lopsided /= lopsided.sum(axis=1, keepdims=True)
    assert np.abs(lopsided.mean(axis=0) - 1 / size).max() > 4 * error, "a sphere that is pressed flat is told from it"


def test_counts_begin_one_by_one_and_end_with_all():
    assert default_counts(184)[:8] == list(range(1, 9))
    assert default_counts(184)[-1] == 184
    assert default_counts(5) == [1, 2, 3, 4, 5]
    many = np.array(default_counts(10**6))
    assert (np.diff(many) > 0).all()
    assert len(many) <= 24


# --- the learning coefficient


def becoming_curved(size=10, always=2, later=4, drift=0.0):
    """A quadratic in which ``later`` directions become curved where their weights leave 0; drifting ones do not."""
    curved = jnp.arange(size) < always
    learns = (jnp.arange(size) >= always) & (jnp.arange(size) < always + later)

    def loss_fn(w, batch):
        return 0.5 * jnp.sum(batch["curvature"] * (w[None] - batch["center"]) ** 2, axis=1)

    def relabel(w, data):
        rows = data["center"].shape
        stiff = jnp.where(curved | (learns & (jnp.abs(w) > 0.5)), 1.0, 0.0)
        return {"curvature": jnp.broadcast_to(stiff, rows), "center": jnp.broadcast_to(w, rows)}

    data = {"curvature": jnp.ones((500, size)), "center": jnp.zeros((500, size))}
    ends = jnp.zeros(size), jnp.where(learns, 1.0, drift)
    return Subject(Problem(loss_fn, ends[0], data), relabel=relabel), *ends, later


@pytest.fixture(scope="module")
def located():
    subject, before, after, later = becoming_curved()
    # the null: coordinates of which one of four became curved
    wrong = by_scores(before, jnp.where(jnp.arange(10) == 2, 2.0, 0.0) + jnp.where(jnp.arange(10) > 6, 1.0, 0.0))
    kinds = {"moves": largest_moves(before, after), "elsewhere": wrong}
    probe = llc_probe(nbeta=1e4, gamma=1.0, chains=8, draws=2000, burnin=500)
    return coefficient_locality(jax.random.key(0), subject, before, after, kinds, [later, 10], probe=probe)


def test_the_change_of_the_learning_coefficient_is_that_of_the_directions_that_became_curved(located):
    assert located.resolved
    assert abs(located.change - 2.0) < 3 * located.change_error
    share, error = located.shares[0, 0], located.share_errors[0, 0]
    assert 0 < error < 0.2
    assert abs(share - 1) < 3 * error
    assert located.values[0, 0, 0] == 0.0
    assert located.healthy[0, 0]


def test_directions_that_did_not_become_curved_explain_little_of_it(located):
    share, error = located.shares[1, 0], located.share_errors[1, 0]
    assert abs(share - 0.25) < 3 * error
    assert share + 3 * error < 0.7


def test_all_directions_explain_all_of_it_from_the_same_readings(located):
    assert located.shares[:, 1].tolist() == [1.0, 1.0]
    assert located.share_errors[:, 1].tolist() == [0.0, 0.0]
    assert "4 of 10 explain" in located.explain()


# --- what is refused


def refusals():
    problem, before, after = planted()
    kinds = {"moves": largest_moves(before, after)}
    return {
        "other shapes": (lambda: locality(jax.random.key(0), problem, before, after[:-1], kinds), "after: has shapes"),
        "equal ends": (lambda: locality(jax.random.key(0), problem, before, before, kinds), "equals before"),
        "not finite": (
            lambda: locality(jax.random.key(0), problem, before, after.at[0].set(jnp.nan), kinds),
            "not finite",
        ),
        "no kinds": (lambda: locality(jax.random.key(0), problem, before, after, {}), "kinds: got none"),
        "not a kind": (
            lambda: locality(jax.random.key(0), problem, before, after, {"x": restriction.full()}),
            "'x' is a Restriction",
        ),
        "another tree's kind": (
            lambda: locality(
                jax.random.key(0), problem, before, after, {"x": largest_moves(jnp.zeros(3), jnp.ones(3))}
            ),
            "'x' does not fit",
        ),
        "counts that fall": (
            lambda: locality(jax.random.key(0), problem, before, after, kinds, counts=[2, 1]),
            "counts: got",
        ),
        "no direction": (
            lambda: locality(jax.random.key(0), problem, before, after, kinds, counts=[0, 1]),
            "counts: got",
        ),
        "too many": (
            lambda: locality(jax.random.key(0), problem, before, after, kinds, counts=[D + 1]),
            "from 1 to 20",
        ),
        "half a direction": (
            lambda: locality(jax.random.key(0), problem, before, after, kinds, counts=[1.5]),
            "counts: got",
        ),
        "one draw": (lambda: locality(jax.random.key(0), problem, before, after, kinds, draws=1), "draws: got 1"),
        "no such subloss": (
            lambda: locality(jax.random.key(0), problem, before, after, kinds, sublosses=["none"]),
            "sublosses: got 'none'",
        ),
        "a loss of another shape": (
            lambda: locality(
                jax.random.key(0), Problem(lambda w, batch: jnp.zeros(3), before, problem.data), before, after, kinds
            ),
            "returned shape",
        ),
        "not a key": (lambda: locality(0, problem, before, after, kinds), "key: got"),
        "NaN scores": (lambda: by_scores(before, before.at[0].set(jnp.nan)), "scores: some are NaN"),
        "scores of another shape": (lambda: by_scores(before, jnp.zeros(3)), "scores: has shapes"),
        "one checkpoint": (lambda: steps_between([before]), "trajectory: got 1"),
        "equal checkpoints": (lambda: steps_between([before, before]), "all checkpoints are equal"),
        "overlapping units": (
            lambda: units(before, after, {"a": restriction.mask(before, jnp.ones(D, bool)), "b": restriction.full()}),
            "overlap",
        ),
        "a span as a unit": (
            lambda: units(before, after, {"a": restriction.span(jnp.ones((1, D)) / 2)}),
            "not a mask",
        ),
        "no units": (lambda: units(before, after, {}), "parts: got none"),
        "too wide a subspace": (lambda: random_subspace(jax.random.key(0), before, D + 1), "count: got 21"),
        "λ̂ of no kind": (lambda: coefficient_locality(jax.random.key(0), problem, before, after, {}, [1]), "got none"),
        "λ̂ of equal ends": (
            lambda: coefficient_locality(jax.random.key(0), problem, before, before, kinds, [1]),
            "equals before",
        ),
        "λ̂ of no such subloss": (
            lambda: coefficient_locality(jax.random.key(0), problem, before, after, kinds, [1], subloss="none"),
            "sublosses: got 'none'",
        ),
    }


@pytest.mark.parametrize("case", list(refusals()))
def test_bad_input_is_refused_with_the_argument_and_the_remedy(case):
    call, message = refusals()[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_a_kind_of_ones_own_and_a_null_of_ones_own():
    problem, before, after = planted()

    def moved(before, after, count):
        return jnp.where(jnp.arange(D) < count, after, before)

    own = Directions(jax.tree_util.Partial(moved), largest_moves(before, after).restriction, D)
    nulls = {"mine": lambda key: random_coordinates(key, before)}
    found = locality(jax.random.key(0), problem, before, after, {"own": own}, counts=[K0, D], nulls=nulls)
    assert found.enough("all", "own") == K0
    assert found.nulls == ("mine",)
    assert set(default_nulls(before, after, {"own": own})) != {"mine"}
