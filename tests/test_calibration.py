"""A run that chooses for itself: repeated to the last bit, long enough but within its budget, begun again if too hot.

One loss, one shape of a block and one schedule are shared by nearly all tests, so that little is compiled.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import BASELINE, CURVATURES, ORIGIN, assert_same, compilations, deviation, quadratic

import slt_jax as slt
from slt_jax import posterior as posteriors
from slt_jax.estimators import block, planning
from slt_jax.estimators.calibration import Schedule, measure
from slt_jax.estimators.dynamics import sampler_for
from slt_jax.estimators.estimate import read
from slt_jax.estimators.examine import Evidence
from slt_jax.estimators.health import LEAF_LIMIT

NBETA, GAMMA = 1000.0, 0.1
#: A block of 800 gradients for each chain, half of them draws: too few for an error of 5 %.
CHAINS, DRAWS, BURNIN, GRADIENTS = 4, 400, 400, 800
BLOCK = dict(nbeta=NBETA, gamma=GAMMA, chains=CHAINS, draws=DRAWS, burnin=BURNIN)
SCHEDULE = Schedule(CHAINS, DRAWS, BURNIN, 1, None)
STRETCH, STAGES = 80, 10
#: ``nβ h`` of every mode; the examples weigh the quadratic each in its own way, so that batches heat.
STIFFNESS = np.concatenate([NBETA * float(BASELINE.mean()) * h.ravel() for h in jax.tree.leaves(CURVATURES)])
EXACT = float(0.5 * np.sum(STIFFNESS / (STIFFNESS + GAMMA)))
#: A step beyond this in units of ``1 / √k`` is unstable, k the largest force constant.
STABLE = 2.0 / math.sqrt(STIFFNESS.max() + GAMMA)
EVIDENCE = Evidence(jnp.float32(0.0), jnp.asarray(True), jnp.float32(0.0))

traces = []


def loss_fn(params, batch):
    traces.append(1)
    return batch * (1 + quadratic(params, 0.0))


def go(seed=0, **settings):
    return slt.llc(jax.random.key(seed), loss_fn, ORIGIN, BASELINE, **BLOCK | settings)


@pytest.fixture(scope="module")
def posterior():
    return slt.localise(loss_fn, ORIGIN, BASELINE, NBETA, GAMMA)


class Counted(NamedTuple):
    """An estimate, how often the loss was traced for it, and how many programs were compiled."""

    estimate: slt.Estimate
    traces: int
    compiled: int
    samplers: int


def counted(seed=0, **settings):
    before, samplers = len(traces), block.stages_in_place._cache_size()
    with compilations() as compiled:
        estimate = go(seed, **settings)
    return Counted(estimate, len(traces) - before, len(compiled), block.stages_in_place._cache_size() - samplers)


@pytest.fixture(scope="module")
def cost_of_once():
    # what other tests have compiled before must not hide what this one does
    jax.clear_caches()
    return counted()


@pytest.fixture(scope="module")
def cost_of_going_on(cost_of_once):
    return counted(budget=2 * GRADIENTS, relative_error=0.0)


@pytest.fixture(scope="module")
def once(cost_of_once):
    return cost_of_once.estimate


@pytest.fixture(scope="module")
def grown(cost_of_going_on):
    return cost_of_going_on.estimate


@pytest.fixture(scope="module")
def batches():
    return go(batch_size=8)


@pytest.fixture(scope="module")
def first_block(posterior):
    """All draws of one block, burn-in and draws, where it stopped and what it used."""
    start_key, run_key = jax.random.split(jax.random.key(8))
    warm = block.start(start_key, posterior, BASELINE, CHAINS, None)
    todo = planning.plan(CHAINS, 5, 5, BURNIN)
    return block.run(run_key, posterior, BASELINE, warm, todo, STRETCH, 1, None)


@pytest.fixture
def begun_too_fast(monkeypatch):
    """Plans that ask for a given step, in units of the largest stable one, and not for that of the rule."""

    def ask(times):
        def plan(*shape_and_fraction):
            *shape, fraction = shape_and_fraction
            found = original(*shape, fraction)
            return found._replace(step_size=jnp.full_like(found.step_size, times * STABLE) * found.fraction)

        monkeypatch.setattr(planning, "plan", plan)

    original = planning.plan
    return ask


# settings that repeat a run


def assert_repeated(estimate):
    again = slt.llc(jax.random.key(0), loss_fn, ORIGIN, BASELINE, settings=estimate.settings)
    assert_same(again, estimate)
    other = slt.llc(jax.random.key(1), loss_fn, ORIGIN, BASELINE, settings=estimate.settings)
    assert float(other.value) != float(estimate.value)
    slower = estimate.settings._replace(step_size=0.99 * estimate.settings.step_size)
    changed = slt.llc(jax.random.key(0), loss_fn, ORIGIN, BASELINE, settings=slower)
    assert float(changed.value) != float(estimate.value)


@pytest.mark.parametrize("name", ["once", "grown", "batches"])
def test_settings_repeat_a_run_to_the_last_bit(name, request):
    """Numbers, verdict and settings; another key or another step gives another number."""
    assert_repeated(request.getfixturevalue(name))


def test_settings_say_what_was_run(once, grown, batches):
    for estimate, blocks, batch_size in ((once, 1, 0), (grown, 2, 0), (batches, 1, 8)):
        chosen = estimate.settings
        assert int(chosen.blocks) == blocks
        assert int(chosen.gradients) == blocks * GRADIENTS
        assert int(chosen.kept) == blocks * DRAWS
        assert int(chosen.batch_size) == batch_size
        assert (float(chosen.nbeta), float(chosen.gamma)) == (np.float32(NBETA), np.float32(GAMMA))
        assert chosen.step_size.shape == chosen.share.shape == (STAGES, 2)
    assert float(batches.health.heating) > 0.0
    assert float(once.health.heating) == 0.0


# how long


@pytest.mark.parametrize("budget", [0, 799, 800, 1599, 1600, 1700, 2400])
def test_no_chain_takes_more_gradients_than_its_budget_beyond_the_first_block(budget):
    chosen = go(budget=budget, relative_error=0.0).settings
    assert int(chosen.gradients) <= max(budget, GRADIENTS)
    assert int(chosen.gradients) > budget - GRADIENTS, "what is asked for without end takes all that it may"
    assert int(chosen.blocks) == max(1, budget // GRADIENTS)


def test_a_run_goes_on_until_its_error_is_small_enough_and_then_stops(once, grown):
    for demand in (0.2, 0.12, 0.08):
        estimate = go(budget=3 * GRADIENTS, relative_error=demand)
        enough = bool(estimate.std_error <= demand * estimate.value) and bool(estimate.health.ok)
        assert enough or int(estimate.settings.blocks) == 3
    assert float(once.std_error) > 0.05 * EXACT, "one block is not enough"
    assert int(go(budget=3 * GRADIENTS, relative_error=0.05).settings.blocks) > 1
    for estimate in (once, grown):
        assert deviation(estimate.value, estimate.std_error, EXACT) < 4
    assert float(grown.std_error) < float(once.std_error)


def test_a_length_that_is_asked_for_is_kept():
    """However large the error; the same with a budget is longer."""
    assert int(go(relative_error=0.0).settings.blocks) == 1
    assert int(go(relative_error=0.0, budget=2 * GRADIENTS).settings.blocks) == 2


def test_chains_go_on_from_where_they_stopped(posterior, first_block):
    _, warm, used = first_block
    todo = planning.going_on(used, CHAINS)
    given_up = jax.tree.map(jnp.copy, warm)
    further, _, again = block.run(jax.random.key(9), posterior, BASELINE, given_up, todo, STRETCH, 1, None)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given_up.state)), "two sets of states at once"
    positions = jax.tree.map(lambda leaf: leaf.reshape(CHAINS, *leaf.shape[2:]), warm.state.position)
    batch = slt.full_batch(posterior, BASELINE)
    at_the_end = jax.vmap(lambda z: posteriors.excess(posterior, z, batch))(positions)
    np.testing.assert_allclose(further.excess[:, 0], at_the_end, rtol=1e-5)
    assert (at_the_end > 0).all(), "the centre would have none"
    assert_same(warm.share, jnp.ones(2))
    # the curvature of a quadratic is the same everywhere, and power iteration finds it from below
    assert (np.asarray(again.step_size) <= np.asarray(used.step_size[-1])).all()
    np.testing.assert_allclose(again.step_size, jnp.broadcast_to(used.step_size[-1], (STAGES, 2)), rtol=0.01)


def test_blocks_that_go_on_lose_less_velocity_only_where_there_are_many_chains():
    few, many = (planning.plan(chains, 5, 5, 2000) for chains in (8, 16))
    np.testing.assert_allclose(few.friction[-1], 0.015, rtol=1e-6)
    np.testing.assert_allclose(many.friction[-1], planning.BURNIN_FRICTION, rtol=1e-6)
    assert (planning.going_on(few, 8).friction == few.friction[-1]).all()
    assert (planning.going_on(many, 16).friction < 0.5 * many.friction[-1]).all()


def test_a_longer_run_is_the_shorter_one_and_what_follows_it(posterior):
    """No jump where a block ends, as there is where a chain is followed by another; and no noise used twice."""
    run = functools.partial(measure, jax.random.key(0), posterior, BASELINE, SCHEDULE, relative_error=0.0)
    (_, short, _), (_, long, _) = run(budget=0), run(budget=2 * GRADIENTS)
    before, after = short.distance_squared[:, -1], long.distance_squared[:, 0]
    a_step = np.abs(np.diff(short.distance_squared, axis=1)).max(axis=1)
    assert (np.abs(after - before) <= 1.5 * a_step).all()
    assert (np.abs(after - jnp.roll(before, 1)) > 1.5 * a_step).any()
    correlations = [np.corrcoef(pair)[0, 1] for pair in zip(short.excess, long.excess[:, DRAWS:], strict=True)]
    # the same noise twice leads contracting chains to the same places
    assert np.mean(correlations) < 0.8


# steps that are too large


def test_a_burnin_that_diverges_goes_back_and_takes_a_smaller_step(posterior):
    start_key, run_key = jax.random.split(jax.random.key(8))
    warm = block.start(start_key, posterior, BASELINE, CHAINS, None)
    todo = planning.plan(CHAINS, 5, 5, BURNIN, 8.0)
    trace, _, used = block.run(run_key, posterior, BASELINE, warm, todo, STRETCH, 1, None)
    finite = np.isfinite(trace.excess).reshape(CHAINS, STAGES, STRETCH).all(axis=(0, 2))
    assert float(used.step_size[0, 0]) > STABLE
    assert float(used.step_size[-1].max()) < STABLE
    assert not finite[0]
    assert finite[5:].all()
    kept = jax.tree.map(lambda leaf: leaf[:, BURNIN:], trace)
    estimate = read(kept, posterior, EVIDENCE)
    assert deviation(estimate.value, estimate.std_error, EXACT) < 4


def test_a_run_whose_step_was_too_large_is_begun_again_with_half_of_it(begun_too_fast):
    begun_too_fast(1.5)
    without = go()
    assert math.isnan(float(without.value))
    assert int(without.settings.attempt) == 0
    again = go(budget=4 * GRADIENTS)
    assert int(again.settings.attempt) == 1
    assert float(again.settings.fraction) == 0.5
    np.testing.assert_allclose(again.settings.step_size, 0.75 * STABLE, rtol=1e-6)
    assert bool(again.health.ok), again.health.explain()
    assert deviation(again.value, again.std_error, EXACT) < 4
    # what was given up was paid for
    assert int(again.settings.gradients) == (1 + int(again.settings.blocks)) * GRADIENTS <= 4 * GRADIENTS
    assert_repeated(again)


@pytest.mark.parametrize(("budget", "attempts"), [(800, 0), (1600, 1), (2400, 2), (8000, 2)])
def test_a_run_that_cannot_be_saved_ends_within_its_budget_and_says_so(begun_too_fast, budget, attempts):
    begun_too_fast(10.0)
    estimate = go(budget=budget)
    assert int(estimate.settings.attempt) == attempts
    assert int(estimate.settings.gradients) == (1 + attempts) * GRADIENTS <= budget
    assert not bool(estimate.health.checks["finite"])
    assert "diverged" in estimate.explain()
    assert [float(end) for end in estimate.interval] == [-math.inf, math.inf]


# from below and from above


def test_half_of_the_chains_come_from_above_and_meet_the_others(grown, first_block):
    trace, _, used = first_block
    # the second and third stage of the burn-in, at a tenth and three tenths of nβ
    early = NBETA * np.asarray(trace.excess[:, STRETCH : 3 * STRETCH]).mean(axis=1)
    assert early[2:].mean() > 2 * early[:2].mean()
    assert used.share[:, 0].tolist() == [1.0] * STAGES
    assert float(used.share[0, 1]) == np.float32(planning.HOT)
    assert used.share[3:, 1].tolist() == [1.0] * (STAGES - 3)
    assert abs(float(grown.health.gap)) < 4 * float(grown.health.gap_error)
    assert bool(grown.health.checks["bracket"])
    assert "chains from above minus chains from below" in grown.health.explain()


@pytest.fixture(scope="module")
def long_trace(posterior):
    """As shaped as the draws of two blocks, but of independent draws: the exact law of the quadratic."""
    _, trace, _ = measure(jax.random.key(0), posterior, BASELINE, SCHEDULE, budget=2 * GRADIENTS, relative_error=0.0)
    draw = np.random.default_rng(0).normal(size=(len(STIFFNESS), *trace.excess.shape))
    squares = draw**2 / (STIFFNESS + GAMMA)[:, None, None]
    virials = [(draw[part] ** 2).mean(axis=0) for part in (slice(0, 2), slice(2, 6))]
    exact = {
        "excess": 0.5 * np.tensordot(STIFFNESS / NBETA, squares, axes=1),
        "virial": (draw**2).mean(axis=0),
        "virials": np.stack(virials, axis=-1),
        "distance_squared": squares.sum(axis=0),
    }
    return trace._replace(**{name: jnp.asarray(value, jnp.float32) for name, value in exact.items()})


def verdict(trace, posterior, bracket=True):
    return read(trace, posterior, EVIDENCE._replace(bracket=jnp.asarray(bracket))).health


def failed(health):
    return [name for name, passed in health.checks.items() if not bool(passed)]


def test_halves_that_differ_fail_the_bracket_and_nothing_else(posterior, long_trace):
    sound = verdict(long_trace, posterior)
    assert failed(sound) == []
    # by twice what is allowed, a sixth of what a draw varies
    apart = 2 * 3.5 * float(sound.gap_error) / NBETA
    planted = long_trace._replace(excess=long_trace.excess.at[2:].add(apart))
    assert failed(verdict(planted, posterior)) == ["bracket"]
    assert "chains from below and from above have not met" in verdict(planted, posterior).explain()
    # without a bracket the same draws are in order
    unknown = verdict(planted, posterior, bracket=False)
    assert failed(unknown) == []
    assert math.isnan(unknown.gap)
    assert "no bracket" in unknown.explain()
    # and so are they where the two kinds of chains are mixed
    mixed = planted._replace(excess=planted.excess[jnp.array([0, 2, 1, 3])])
    assert failed(verdict(mixed, posterior)) == []


def test_a_bracket_needs_an_even_number_of_chains_and_a_burnin():
    for chains, stages, expected in ((4, 5, True), (2, 2, True), (3, 5, False), (1, 5, False), (4, 1, False)):
        assert planning.has_bracket(chains, stages) is expected
        annealed = np.asarray(planning.plan(chains, stages, 5, 1000).share).min() < 1
        assert annealed == expected


# equipartition, leaf by leaf


def test_virials_of_leaves_weighted_by_their_sizes_are_the_virial_of_all(first_block):
    trace, _, _ = first_block
    sizes = np.array([leaf.size for leaf in jax.tree.leaves(ORIGIN)])
    weighted = np.asarray(trace.virials) @ sizes / sizes.sum()
    np.testing.assert_allclose(weighted, trace.virial, rtol=1e-4, atol=1e-6)
    assert np.abs(np.asarray(trace.virials).mean(axis=-1) - trace.virial).max() > 0.1, "the plain mean is not"


def test_one_heated_leaf_is_flagged_though_all_together_are_not(posterior, long_trace):
    """Two modes too hot by half, four too cold: below 1 in all."""
    virials = long_trace.virials * jnp.array([[[1.5, 0.7]]])
    planted = long_trace._replace(virials=virials, virial=virials @ jnp.array([2 / 6, 4 / 6]))
    health = verdict(planted, posterior)
    assert float(health.virial) < 1
    assert float(health.hottest) > LEAF_LIMIT
    assert bool(health.overheated)
    assert failed(health) == ["virial"]
    # of the mean alone nothing could be said
    even = planted._replace(virials=jnp.stack([planted.virial, planted.virial], axis=-1))
    assert failed(verdict(even, posterior)) == []


# what is compiled


def test_going_on_compiles_no_sampler_and_does_not_look_at_the_loss_again(cost_of_once, cost_of_going_on):
    assert cost_of_once.samplers == 1
    assert cost_of_once.traces > 0
    assert int(cost_of_going_on.estimate.settings.blocks) == 2
    assert cost_of_going_on.samplers == cost_of_going_on.traces == 0


def test_what_a_first_call_compiles_is_a_few_programs(cost_of_once):
    """Operations outside of jit are a program each: they were fifty."""
    assert 4 <= cost_of_once.compiled <= 24


def test_another_key_temperature_and_centre_compile_nothing(cost_of_once, cost_of_going_on):
    """Other numbers are other arguments, however long the run."""
    assert min(cost_of_once.compiled, cost_of_going_on.compiled) > 0, "the counter does count"
    center = jax.tree.map(lambda leaf: leaf + 0.01, ORIGIN)
    before = len(traces)
    with compilations() as compiled:
        found = [
            slt.llc(jax.random.key(seed), loss_fn, center, BASELINE, **BLOCK | {"nbeta": 500.0, "gamma": 0.3} | more)
            for seed, more in ((3, {}), (4, {"budget": 2 * GRADIENTS, "relative_error": 0.0}))
        ]
    assert compiled == []
    assert len(traces) == before
    assert [int(estimate.settings.blocks) for estimate in found] == [1, 2]
    assert len({float(estimate.value) for estimate in found}) == 2


# short runs of one chain


def friction(chains, burnin, draws=250):
    length = Schedule(chains, draws, burnin, 1, None)
    return np.asarray(planning.plan(chains, length.burnin_stages, STAGES // 2, burnin).friction), length


@pytest.mark.parametrize("chains", [1, 3])
@pytest.mark.parametrize("burnin", [100, 250, 399])
def test_a_short_burnin_without_annealed_chains_forgets_its_cold_start_to_one_per_cent(chains, burnin):
    """Half of the energy is lacking at the start and a share of ``e^-f`` of what is lacking in the step after."""
    found = friction(chains, burnin)[0]
    np.testing.assert_allclose(0.5 * math.exp(-burnin * found[0]), 0.01, rtol=0.1)
    assert (found == found[0]).all(), "another friction for the draws is another start to forget"


@pytest.mark.parametrize(("chains", "burnin"), [(1, 400), (3, 2000)])
def test_a_long_burnin_has_the_least_friction_and_the_draws_their_own(chains, burnin):
    found, length = friction(chains, burnin)
    np.testing.assert_allclose(found[: length.burnin_stages], planning.BURNIN_FRICTION, rtol=1e-6)
    np.testing.assert_allclose(found[length.burnin_stages :], planning.DRAW_FRICTION, rtol=1e-6)


def test_annealed_chains_lose_their_heat_sooner_than_cold_ones_find_theirs():
    """They begin with ten times the energy, and have two fifths of the burn-in left once they are cold."""
    found, length = friction(4, 250)
    left = 9 * math.exp(-0.4 * 250 * found[length.burnin_stages - 1])
    assert left < 0.01
    assert 9 * math.exp(-0.4 * 250 * friction(1, 250)[0][0]) > 1, "what is enough for a cold start is not for them"


# in memory


def copies(chains, **settings):
    """Bytes that an estimate needs for each chain, arguments included, over those of the parameters."""
    problem = slt.truths.deep_linear_problem(jax.random.key(0), (100, 100, 100, 100), 25, examples=1000)

    def value(key, *problem):
        return slt.llc(key, *problem, chains=chains, draws=10, burnin=10, **settings).value

    needed = jax.jit(value).lower(jax.random.key(0), *problem).compile().memory_analysis()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(problem.params))
    return (needed.temp_size_in_bytes + needed.argument_size_in_bytes) / size / chains


def test_a_chain_needs_few_copies_of_the_parameters_and_four_share_what_looks_for_curvature():
    """Centre, target, minimum found, position, velocity, and the four of a product with the Hessian of three layers."""
    alone, unpolished, four = copies(1), copies(1, polish=False), copies(4)
    assert alone < 9.5
    assert four < 5.5
    assert 0.9 < alone - unpolished < 1.1, "the minimum found is a copy: what is counted is what is there"


def test_where_gamma_holds_every_mode_the_velocity_is_lost_sooner_and_energies_are_forgotten_sooner():
    """With γ far above the curvature, at the step that follows from it; the control has the friction of a draw."""
    data = jnp.zeros(1000)
    held = slt.localise(lambda w, x: 0.005 * jnp.mean(w**2) * jnp.ones_like(x), jnp.zeros(50), data, 100.0, 50.0)
    step = jnp.float32(0.3 / 50**0.5)
    ours = sampler_for(held, step, planning.DRAW_FRICTION, None)
    np.testing.assert_allclose(ours.step.args[1], 0.3, rtol=1e-5)
    low = slt.samplers.underdamped(step, friction=planning.DRAW_FRICTION)

    def draws(sampler):
        trace = slt.sample(jax.random.key(0), sampler, held, data, draws=2000, burnin=500, chains=4)
        return float(slt.diagnostics.ess(trace.excess)), trace

    (sooner, trace), (later, _) = draws(ours), draws(low)
    assert sooner > 3 * later
    # and it is the same law: nβ E[L] = ½ Σ nβ h / (nβ h + γ)
    value = held.nbeta * trace.excess
    stiffness = 100 * 0.01 / 50
    exact = 0.5 * 50 * stiffness / (stiffness + 50)
    assert abs(float(value.mean()) - exact) < 4 * float(slt.diagnostics.mcse(value))


def test_where_gamma_is_weak_the_friction_is_that_which_was_asked_for(posterior):
    ours = sampler_for(posterior, 1e-3, planning.DRAW_FRICTION, None)
    np.testing.assert_allclose(ours.step.args[1], planning.DRAW_FRICTION, rtol=1e-6)
