"""The posterior over codes: an honest prior, search from random codes, families, and odds that grow as -Δλ log n."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import slt_jax as slt
from slt_jax import programs, synthesis
from slt_jax.programs.turing import surprise
from slt_jax.substructure import contact_exponents
from slt_jax.truths import mutation_spectrum, turing


def words(longest):
    return ["".join(p) for n in range(1, longest + 1) for p in itertools.product("AB", repeat=n)]


#: A machine so small that the posterior can be read off draws from the prior: 16 dimensions.
TINY = (("a", "b"), "_A", {"A": "b", "AA": "b", "": "a"}, 2)
NBETA = 6.0


def random_logits(seed, states, symbols, scale=1.0):
    flat, tree = ravel_pytree(programs.logits_like(states, symbols))
    return tree(scale * jax.random.normal(jax.random.key(seed), flat.shape))


def free_entries(code, dropped):
    """All entries of a code but one of each distribution, flat: coordinates of the product of simplices."""
    tables = zip(code, dropped, strict=True)
    return jnp.concatenate([table[~np.eye(table.shape[-1], dtype=bool)[np.asarray(drop)]] for table, drop in tables])


def constant(states, symbols):
    """``log Π (k-1)!``: the uniform density on all simplices."""
    return states * symbols * sum(float(jax.scipy.special.gammaln(k)) for k in (symbols, states, 3))


@pytest.mark.parametrize(("states", "symbols"), [(2, 3), (3, 2), (1, 4)])
def test_the_density_of_the_logits_is_the_jacobian_of_their_map(states, symbols):
    with jax.enable_x64(True):
        logits = random_logits(0, states, symbols, 2.0)
        flat, tree = ravel_pytree(logits)
        dropped = [np.full((states, symbols), width - 1) for width in (symbols, states, 3)]
        jacobian = jax.jacfwd(lambda z: free_entries(programs.code_from_logits(tree(z)), dropped))(flat)
        expected = jnp.linalg.slogdet(jacobian)[1] + constant(states, symbols)
        assert float(programs.log_uniform(logits)) == pytest.approx(float(expected), abs=1e-9)
        again = programs.logits_of(programs.code_from_logits(logits))
        assert all(jnp.allclose(again[name], logits[name], atol=1e-10) for name in logits)


def test_the_density_near_a_program_is_the_jacobian_of_its_map():
    with jax.enable_x64(True):
        program = programs.parity()
        ratios = random_logits(1, 2, 3, 2.0)
        flat, tree = ravel_pytree(ratios)
        rules = programs.Code(*(jnp.array(table) for table in (program.write, program.next_state, program.move)))
        jacobian = jax.jacfwd(lambda x: free_entries(programs.code_near(rules, tree(x)), rules))(flat)
        mass = 6 * sum(np.log([3, 2, 3]))  # of the neighbourhood: 1/k for each distribution
        expected = jnp.linalg.slogdet(jacobian)[1] + constant(2, 3) + mass
        assert float(programs.log_uniform_near(ratios)) == pytest.approx(float(expected), abs=1e-9)
        code = programs.code_near(rules, ratios)
        assert programs.nearest_program(code, program.states, program.symbols)[:5] == program[:5]


@pytest.fixture(scope="module")
def weighed():
    """Mean losses of the tiny task under the prior, its posterior, and the posterior near one program."""
    codes = programs.uniform_codes(jax.random.key(0), 2, 2, 60_000)
    data = programs.synthesis_problem(*TINY, nbeta=NBETA).data
    losses = np.asarray(jax.jit(jax.vmap(lambda code: jnp.mean(surprise(code, data))))(codes), float)
    return codes, losses


def weighted_mean(losses):
    weights = np.exp(-NBETA * (losses - losses.min()))
    weights /= weights.sum()
    mean = weights @ losses
    return mean, np.sqrt((weights**2) @ (losses - mean) ** 2)


def chain_mean(posterior, data, code_of, sampler, draws=500):
    trace = slt.sample(
        jax.random.key(1),
        sampler,
        posterior,
        data,
        draws=draws,
        chains=32,
        burnin=200,
        observe=lambda z: jnp.mean(surprise(code_of(z), data)),
    )
    means = np.asarray(trace.observables, float).mean(axis=1)
    return means.mean(), means.std(ddof=1) / np.sqrt(len(means))


def test_langevin_chains_draw_codes_from_the_posterior_with_a_uniform_prior(weighed):
    sampler = slt.samplers.mala(0.35)
    problem = programs.synthesis_problem(*TINY, nbeta=NBETA)
    posterior = programs.posterior_at(problem, NBETA)
    found, error = chain_mean(posterior, problem.data, programs.code_from_logits, sampler)
    expected, other = weighted_mean(weighed[1])
    assert abs(found - expected) < 4 * np.hypot(error, other)
    # without the Jacobian the same chain draws codes that are not weighed uniformly
    bare = slt.localise(
        lambda z, batch: surprise(programs.code_from_logits(z), batch) + 0.5e-2 * jnp.sum(ravel_pytree(z)[0] ** 2),
        problem.params,
        problem.data,
        nbeta=NBETA,
        gamma=0.0,
    )
    found, error = chain_mean(bare, problem.data, programs.code_from_logits, sampler)
    assert abs(found - expected) > 10 * np.hypot(error, other)


def test_codes_near_a_program_are_those_of_the_posterior_that_round_to_it(weighed):
    """Entry by entry the likeliest is swapped with the rule: uniform codes become uniform codes near the program."""
    program = programs.parse("a A -> b A R\na _ -> a _ S\nb A -> b A S\nb _ -> b _ S")
    codes, losses = weighed
    rules = programs.Code(*(jnp.array(table) for table in (program.write, program.next_state, program.move)))

    def swapped(table, rule):
        order = np.broadcast_to(np.arange(table.shape[-1]), table.shape).copy()
        top = np.asarray(jnp.argmax(table, axis=-1))[..., None]
        right = np.broadcast_to(np.asarray(rule)[None, ..., None], top.shape)
        np.put_along_axis(order, right, top, axis=-1)
        np.put_along_axis(order, top, right, axis=-1)
        return np.take_along_axis(np.asarray(table), order, axis=-1)

    near = programs.Code(*(swapped(table[:30_000], rule) for table, rule in zip(codes, rules, strict=True)))
    problem = programs.neighbourhood_problem(program, list(TINY[2]), 2, NBETA)
    expected, other = weighted_mean(
        np.asarray(jax.jit(jax.vmap(lambda code: jnp.mean(surprise(code, problem.data))))(near), float)
    )
    flow = synthesis.local_flow(
        jax.random.key(2), program, list(TINY[2]), 2, nbetas=[NBETA], draws=300, burnin=50, chains=32
    )
    assert abs(flow.value[0] / NBETA - expected) < 4 * np.hypot(flow.std_error[0] / NBETA, other)
    assert abs(expected - weighted_mean(losses)[0]) > 20 * other  # it is not the posterior over all codes


@pytest.fixture(scope="module")
def competing():
    inputs, steps = words(2), 6
    pair = programs.detect_a(), programs.detect_a_running()
    found = synthesis.odds(
        jax.random.key(0), *pair, inputs, steps, nbetas=[0.2, 1e10, 1e11], draws=200, burnin=100, chains=32
    )
    return found, [turing(program, inputs, steps) for program in pair]


def test_odds_of_two_codes_of_one_function_grow_by_the_difference_of_their_coefficients(competing):
    found, exact = competing
    assert found.ok
    assert float(found.predicted) == pytest.approx(1.2)
    assert abs(found.slope - 1.2) < 3 * found.slope_error
    assert found.slope_error < 0.07
    for flow, truth in zip((found.first, found.second), exact, strict=True):
        value = float(truth.learning_coefficient)
        assert (np.abs(flow.value - value) < 3 * flow.std_error)[1:].all()
    assert "the first program leads" in found.explain()


def test_contact_exponents_of_the_mutations_add_up_to_the_coefficient(competing):
    found, exact = competing
    for flow, truth in zip((found.first, found.second), exact, strict=True):
        value = float(truth.learning_coefficient)
        contact = contact_exponents(flow.mutations[1:], flow.nbetas[1:], learning_coefficient=value)
        assert abs(contact.total / value - 1) < 0.03


def test_next_to_the_prior_odds_do_not_grow_so(competing):
    found = competing[0]
    early = found.second.value[0] - found.first.value[0]
    assert abs(early) < 0.05
    assert abs(found.log_odds[0]) < 0.05  # of the prior both have the same share


TASK = {word: ("even", "odd")[word.count("A") % 2] for word in words(3)}


@pytest.fixture(scope="module")
def searched():
    return synthesis.search(jax.random.key(0), ["even", "odd"], "_AB", TASK, 4, chains=32)


def test_annealing_finds_programs_from_random_codes(searched):
    assert searched.solves.mean() > 0.3
    for program in searched.solutions:
        programs.check(program, TASK, 4, must_halt=False)
    wrong = [program for program, solved in zip(searched.programs, searched.solves, strict=True) if not solved]
    for program in wrong[:3]:
        with pytest.raises(ValueError, match="another function"):
            programs.check(program, TASK, 4, must_halt=False)
    assert searched.course[-1] < 0.5 * searched.course[0]


def test_a_task_that_no_program_can_do_in_time_is_not_solved():
    # the fifth step would be the first to see the last letter
    task = {**dict(list(TASK.items())[:-2]), "BBBBBA": "odd", "BBBBBB": "even"}
    found = synthesis.search(jax.random.key(0), ["even", "odd"], "_AB", task, 4, chains=32)
    assert not found.solves.any()
    assert found.solutions == ()
    assert found.losses.min() > np.log(2.0) / 7 - 1e-3  # two of fourteen inputs look the same


def test_random_codes_alone_solve_nothing():
    codes = jax.tree.map(np.asarray, programs.uniform_codes(jax.random.key(5), 2, 3, 64))
    drawn = [
        programs.nearest_program(jax.tree.map(lambda t, c=c: t[c], codes), ["even", "odd"], "_AB") for c in range(64)
    ]
    assert sum(synthesis.solves(program, TASK, 4) for program in drawn) <= 1


def renamed(program):
    """The same machine with two letters swapped by name: B is called A and A is called B."""
    return programs.parse(programs.render(program).translate(str.maketrans("AB", "BA")))


def test_families_are_of_one_function_and_one_way_to_break():
    one, other = programs.detect_a(), programs.parse("rej A -> acc A S\nrej B -> rej B R\nacc B -> acc B S")
    found = synthesis.families([one, programs.detect_a_running(), other, programs.parity()], words(2), 6)
    by_size = {len(family.members): family for family in found}
    assert sorted(map(len, (family.members for family in found))) == [1, 1, 2]
    assert set(by_size[2].members) == {one, other}
    assert len({family.function for family in found}) == 2
    lambdas = [family.learning_coefficient for family in found if family.function == by_size[2].function]
    assert lambdas == sorted(lambdas)
    swapped = synthesis.families([renamed(one)], [word.translate(str.maketrans("AB", "BA")) for word in words(2)], 6)
    assert swapped[0].spectrum == by_size[2].spectrum
    assert swapped[0].learning_coefficient == by_size[2].learning_coefficient


def test_the_power_of_a_mutation_is_the_slope_of_the_loss_along_it():
    program, inputs, steps = programs.detect_a(), words(2), 6
    with jax.enable_x64(True):
        loss_fn, _, data = programs.turing_problem(program, inputs, steps)
        axes = jnp.concatenate(
            [jnp.eye(30).reshape(30, 2, 3, 5)[..., part] for part in (slice(0, 2), slice(2, 3), slice(3, 5))], axis=-1
        )

        def mean_loss(axis, size):
            parts = {"write": axis[..., :2], "state": axis[..., 2:3], "move": axis[..., 3:]}
            return loss_fn(jax.tree.map(lambda leaf: size * leaf, parts), data).mean()

        small, large = (np.asarray(jax.vmap(mean_loss, (0, None))(axes, size)) for size in (1e-4, 1e-3))
    spectrum = mutation_spectrum(program, inputs, steps)
    from slt_jax.truths.minplus import build_machine

    names = build_machine(program, [tuple(program.symbols.index(s) for s in w) for w in inputs], steps).names
    powers = np.array([spectrum.powers.get(name, 0) for name in names])
    assert (small[powers == 0] == 0).all()
    slopes = np.log10(large[powers > 0] / small[powers > 0])
    assert np.allclose(slopes, powers[powers > 0], atol=0.01)
    assert set(powers) >= {0, 1}
    assert spectrum.counts[0] == (powers == 0).sum()
    assert sum(spectrum.counts) == 30


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"states": "ab"}, "states: got 'ab'"),
        ({"states": 3}, "states: got 3"),
        ({"symbols": 3}, "symbols: got 3"),
        ({"outputs": [("A", "b")]}, "outputs: got"),
        ({"states": ["a", "a"]}, "each once"),
        ({"symbols": "A_"}, "blank"),
        ({"outputs": {}}, "outputs"),
        ({"outputs": {"A": "c"}}, "'c', which is none of the states"),
        ({"outputs": {"B": "a"}}, "'B'"),
        ({"steps": 0}, "steps"),
        ({"hottest": 0.0}, "hottest"),
        ({"coldest": 1.0}, "coldest"),
        ({"chains": 0}, "chains"),
        ({"key": 3}, "key"),
    ],
)
def test_a_search_refuses_what_it_cannot_use(change, message):
    given = {"key": jax.random.key(0), **dict(zip(("states", "symbols", "outputs", "steps"), TINY, strict=True))}
    given = {**given, **change}
    with pytest.raises(ValueError, match=message):
        synthesis.search(**given)


def test_odds_refuse_programs_that_cannot_be_compared():
    key, inputs = jax.random.key(0), words(2)
    other = programs.parse("rej A -> rej A R\nrej B -> acc B S")
    with pytest.raises(ValueError, match="end in different states on"):
        synthesis.odds(key, programs.detect_a(), other, inputs, 4, nbetas=[1.0, 10.0])
    with pytest.raises(ValueError, match="one space of codes"):
        synthesis.odds(key, programs.detect_a(), programs.parity(), inputs, 4, nbetas=[1.0, 10.0])
    with pytest.raises(ValueError, match="must increase"):
        synthesis.odds(key, programs.detect_a(), programs.detect_a_running(), inputs, 4, nbetas=[10.0, 1.0])
    with pytest.raises(ValueError, match="two temperatures"):
        synthesis.odds(key, programs.detect_a(), programs.detect_a_running(), inputs, 4, nbetas=[10.0])
    with pytest.raises(ValueError, match="first, second: got 3"):
        synthesis.odds(key, 3, programs.detect_a(), inputs, 4, nbetas=[1.0, 10.0])
    with pytest.raises(ValueError, match="chains"):
        synthesis.local_flow(key, programs.detect_a(), inputs, 4, nbetas=[1.0], chains=1)
    with pytest.raises(ValueError, match="holds no prior"):
        programs.posterior_at(programs.turing_problem(programs.detect_a(), inputs, 4), 1.0)
    with pytest.raises(ValueError, match="at least one program"):
        synthesis.families([], inputs, 4)
    with pytest.raises(ValueError, match="below 1e"):
        synthesis.local_flow(key, programs.detect_a(), inputs, 4, nbetas=[1e40])
    with pytest.raises(ValueError, match="list of positive"):
        synthesis.local_flow(key, programs.detect_a(), inputs, 4, nbetas=["cold"])
