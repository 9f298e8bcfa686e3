"""Exact learning coefficients of programs: the published table, exact polynomial arithmetic, certificates, numerics."""

import itertools
import time
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slt_jax import programs
from slt_jax.truths.covering import solve_covering
from slt_jax.truths.minplus import build_machine, certain_runs, final_orders
from slt_jax.truths.truth import Truth
from slt_jax.truths.turing import turing


def words(alphabet, longest):
    return ["".join(p) for n in range(1, longest + 1) for p in itertools.product(alphabet, repeat=n)]


WORDS = words("AB", 3)


# ---- exact polynomial arithmetic: signed integer coefficients, the probability of a rule written out as 1 - Σ u ----
# A polynomial maps a monomial to its coefficient. In many letters a monomial is one integer, its exponents in base
# 2^8; along a ray it is the power of the one letter, and powers from LIMIT on are dropped.

LIMIT = 24


def multiply(p, q, limit=None):
    product = {}
    for a, x in p.items():
        for b, y in q.items():
            if limit is None or a + b < limit:
                product[a + b] = product.get(a + b, 0) + x * y
    return {a: x for a, x in product.items() if x}


def add(polynomials):
    total = {}
    for p in polynomials:
        for a, x in p.items():
            total[a] = total.get(a, 0) + x
    return {a: x for a, x in total.items() if x}


def exponents(polynomial, dimension):
    rows = [[(a >> (8 * i)) & 255 for i in range(dimension)] for a in polynomial]
    return np.array(rows, int).reshape(len(rows), dimension)


def minimal(rows):
    """Exponents not divisible by another: the generators of the monomial ideal."""
    rows = np.unique(rows, axis=0)
    rows = rows[np.argsort(rows.sum(1), kind="stable")]
    kept = rows[:0]
    for row in rows:
        if not (kept <= row).all(1).any():
            kept = np.concatenate([kept, row[None]])
    return kept


def code_polynomials(program, letter):
    """Every entry of the code as a polynomial in its errors, numbered as ``build_machine`` numbers them."""
    count, tables = 0, ({}, {}, {})
    for q, a in itertools.product(range(len(program.states)), range(len(program.symbols))):
        for part, width in enumerate((len(program.symbols), len(program.states), 3)):
            rule = (program.write, program.next_state, program.move)[part][q][a]
            right = [{0: 1}]
            for b in range(width):
                if b != rule:
                    tables[part][q, a, b] = letter(count)
                    right.append({monomial: -x for monomial, x in letter(count).items()})
                    count += 1
            tables[part][q, a, rule] = add(right)
    return tables, count


def final_polynomials(program, word, steps, letter, times=multiply, plus=add):
    """The polynomial of each final state, by the recursion of marginals on a tape numbered from the head."""
    (write, following, move), _ = code_polynomials(program, letter)
    states, symbols = range(len(program.states)), range(len(program.symbols))
    tape = {}
    for u in range(-steps, steps + 1):
        symbol = word[u] if 0 <= u < len(word) else 0
        tape[u] = [{0: 1} if a == symbol else {} for a in symbols]
    state = [{0: 1} if q == 0 else {} for q in states]
    for left in range(steps - 1, -1, -1):
        joint = {(q, a): times(state[q], tape[0][a]) for q in states for a in symbols}

        def mix(table, width, joint=joint):
            return [plus([times(h, table[q, a, b]) for (q, a), h in joint.items()]) for b in range(width)]

        tape[0], moves, state = mix(write, len(symbols)), mix(move, 3), mix(following, len(states))
        tape = {
            u: [plus([times(moves[m], tape[u + m - 1][a]) for m in range(3)]) for a in symbols]
            for u in range(-left, left + 1)
        }
    return state


def ray_orders(program, word, steps, weights, rng):
    """Order of each final state along ``u_i = a_i t^{v_i}`` with random integers ``a_i > 0``: LIMIT if not below it."""
    scales = [int(a) for a in rng.integers(1, 10**6, size=len(weights))]

    def times(p, q):
        return multiply(p, q, LIMIT)

    state = final_polynomials(program, word, steps, lambda i: {int(weights[i]): scales[i]}, times)
    return [min(p, default=LIMIT) for p in state]


def error_ideal(program, word, steps, output, dimension):
    """Generators of the ideal of wrong states, by arithmetic of ideals: union, sums of exponents, minimal ones kept."""

    def reduce_to_generators(p):
        rows = minimal(exponents(p, dimension)) if p else ()
        return {sum(int(x) << (8 * i) for i, x in enumerate(row)): 1 for row in rows}

    def times(p, q):
        return reduce_to_generators({a + b: 1 for a in p for b in q})

    def plus(polynomials):
        return reduce_to_generators({a: 1 for p in polynomials for a in p})

    state = final_polynomials(program, word, steps, lambda i: {1 << (8 * i): 1}, times, plus)
    return np.concatenate([exponents(p, dimension) for q, p in enumerate(state) if q != output])


def random_program(rng, states=2, symbols=2):
    def table(width):
        return tuple(tuple(int(x) for x in row) for row in rng.integers(width, size=(states, symbols)))

    given = ((True,) * symbols,) * states
    names = tuple(f"q{i}" for i in range(states))
    return programs.Program(names, tuple("_AB"[:symbols]), table(symbols), table(states), table(3), given)


def face_dimension_by_floats(rows, value, rng):
    """Spread of optimal vertices found with random objectives: independent of the certificates."""
    from scipy.optimize import linprog

    dimension, found = rows.shape[1], []
    for _ in range(3 * dimension):
        answer = linprog(
            rng.normal(size=dimension),
            A_ub=-rows,
            b_ub=-np.ones(len(rows)),
            A_eq=np.ones((1, dimension)),
            b_eq=[float(value)],
            bounds=(0, None),
        )
        found.append(answer.x)
    return np.linalg.matrix_rank(np.array(found) - found[0], tol=1e-6)


def random_case(seed, steps, symbols):
    rng = np.random.default_rng(seed)
    program = random_program(rng, 2, symbols)
    inputs = [tuple(int(x) for x in rng.integers(1, symbols, size=n)) for n in (1, 2)]
    machine = build_machine(program, inputs, steps)
    return rng, program, inputs, machine, certain_runs(machine, program)[0]


@pytest.mark.parametrize("seed", range(60))
def test_minplus_orders_equal_exact_polynomial_arithmetic_along_rays(seed):
    symbols = 2 + seed % 2
    rng, program, inputs, machine, final = random_case(seed, 4, symbols)
    weights = rng.integers(1, 6, size=len(machine.names))
    orders = final_orders(machine, weights, LIMIT).order
    assert [orders[n, q] for n, q in enumerate(final)] == [0, 0]
    assert orders.tolist() == [ray_orders(program, word, 4, weights, rng) for word in inputs]


@pytest.mark.parametrize("seed", range(60))
def test_minplus_monomials_are_those_of_the_signed_polynomial(seed):
    """All rays at once, for two steps, where the polynomial in all letters can be written out."""
    rng, program, inputs, machine, final = random_case(1000 + seed, 2, 3)
    dimension = len(machine.names)
    for n, word in enumerate(inputs):
        polynomials = final_polynomials(program, word, 2, lambda i: {1 << (8 * i): 1})
        assert polynomials[final[n]].get(0) == 1
        for q, polynomial in enumerate(polynomials):
            rows = exponents(polynomial, dimension)
            for weights in rng.integers(1, 30, size=(5, dimension)):
                found = final_orders(machine, weights, 10**6)
                assert found.order[n, q] == min((rows @ weights).tolist(), default=10**6)
                assert not len(rows) or (rows == found.exponent[n, q]).all(1).any()


@pytest.mark.parametrize("seed", range(50))
def test_spectrum_equals_that_of_the_listed_ideal(seed):
    """λ and m from cutting planes against λ and m from the complete list of generators."""
    rng, program, inputs, machine, final = random_case(2000 + seed, 3, 2)
    dimension = len(machine.names)
    ideal = [error_ideal(program, word, 3, output, dimension) for word, output in zip(inputs, final, strict=True)]
    generators = minimal(np.concatenate(ideal))
    truth = turing(program, ["".join(program.symbols[a] for a in word) for word in inputs], 3)
    listed = solve_covering(dimension, lambda v, one: generators[generators @ v < one])
    assert truth.learning_coefficient == listed.value
    assert truth.multiplicity == 1 + listed.face_dimension
    if listed.value and seed < 20:
        assert truth.multiplicity == 1 + face_dimension_by_floats(generators, listed.value, rng)


def test_polynomials_and_machine_disagree_when_a_rule_is_changed():
    program = programs.parse("a A -> b A R\na _ -> a _ S\nb A -> a A S")
    changed = programs.parse("a A -> b A R\na _ -> a _ S\nb A -> b A S")
    weights = np.arange(1, 17)
    orders = [final_orders(build_machine(p, [(1, 1)], 3), weights, 10**6).order for p in (program, changed)]
    assert (orders[0] != orders[1]).any()


@pytest.mark.parametrize(
    ("program", "steps", "value", "multiplicity"),
    [
        (programs.detect_a(), 4, "10", 1),
        (programs.detect_a(), 5, "10", 2),
        (programs.detect_a(), 6, "37/4", 1),
        (programs.detect_a(), 7, "44/5", 1),
        (programs.detect_a(), 8, "17/2", 1),
        (programs.detect_a(), 10, "65/8", 1),
        *((programs.detect_a_running(), steps, "10", 1) for steps in range(4, 11)),
        (programs.detect_a_overwriting(), 8, "98/11", 1),
        *((programs.parity(), steps, "20", 3) for steps in range(4, 11)),
    ],
)
def test_table_of_known_spectra(program, steps, value, multiplicity):
    truth = turing(program, WORDS, steps)
    assert truth.learning_coefficient == Fraction(value)
    assert truth.multiplicity == multiplicity
    assert truth.dimension == programs.dimension(program) == 30


def verify_certificates(program, inputs, steps, truth):
    """Check primal and dual by hand, from the words alone."""
    machine = build_machine(program, [tuple(program.symbols.index(s) for s in word) for word in inputs], steps)
    v = [truth.weights.get(name, Fraction(0)) for name in machine.names]
    assert len(set(machine.names)) == len(machine.names)
    assert sum(v) == truth.learning_coefficient
    assert min(v) >= 0
    load = dict.fromkeys(machine.names, Fraction(0))
    for syndrome in truth.syndromes:
        assert syndrome.weight > 0
        assert sum(power * truth.weights.get(name, 0) for name, power in syndrome.mutations) == 1
        for name, power in syndrome.mutations:
            load[name] += power * syndrome.weight
    assert max(load.values()) <= 1
    assert sum(s.weight for s in truth.syndromes) == truth.learning_coefficient
    # primal feasibility once more, in Python integers of unlimited size
    scale = 10**30 * int(np.lcm.reduce([x.denominator for x in v]))
    orders = final_orders(machine, np.array([int(x * scale) for x in v], object), 2 * scale).order
    final, _ = certain_runs(machine, program)
    assert all(orders[n, q] >= scale for n in range(len(inputs)) for q in range(orders.shape[1]) if q != final[n])


@pytest.mark.parametrize("name", ["detect_a", "detect_a_running", "detect_a_overwriting", "parity"])
def test_primal_and_dual_certificates_agree(name):
    program = getattr(programs, name)()
    truth = turing(program, WORDS, 7)
    verify_certificates(program, WORDS, 7, truth)


def test_a_single_mutation_that_breaks_the_program_is_named():
    truth = turing(programs.parity(), WORDS, 5)
    assert truth.learning_coefficient == 20
    assert "entering even instead of odd in state even reading A breaks it alone" in truth.explain()
    assert "m = 3" in truth.explain()
    assert "halts on every input" in truth.explain()
    assert {field for field in Truth._fields} <= set(truth._fields)
    assert "arXiv 2103.16080" in truth.source


@pytest.mark.parametrize("syndrome", range(6))
def test_smooth_loss_along_a_primal_ray_vanishes_at_order_one(syndrome):
    """Along u = t^v with the optimal v the loss is of order exactly 1; with one weight halved, of less or equal."""
    program, steps = programs.detect_a(), 8
    truth = turing(program, WORDS, steps)
    machine = build_machine(program, [tuple(program.symbols.index(s) for s in w) for w in WORDS], steps)
    v = np.array([float(truth.weights.get(name, 0)) for name in machine.names])
    broken = max((m for m in truth.syndromes[syndrome].mutations), key=lambda m: truth.weights.get(m[0], 0))[0]
    lowered = v.copy()
    lowered[machine.names.index(broken)] /= 2
    expected = final_orders(machine, lowered, 2.0).order
    final, _ = certain_runs(machine, program)
    order = min(expected[n, q] for n in range(len(WORDS)) for q in range(2) if q != final[n])
    assert order < 1 - 1e-9
    assert measured_order(program, steps, v) == pytest.approx(1, abs=0.02)
    assert measured_order(program, steps, lowered) == pytest.approx(order, abs=0.02)


def measured_order(program, steps, v):
    """d log K / d log t between t = e^-28 and e^-24, where K is the smooth loss at small multiples of t^v."""
    with jax.enable_x64(True):
        loss_fn, errors, data = programs.turing_problem(program, WORDS, steps)
        rules = (program.write, program.next_state, program.move)
        shapes = [errors[name].shape for name in ("write", "state", "move")]

        def mean_loss(log_t):
            flat = iter(0.05 * np.exp(log_t * v))
            filled = [np.zeros(shape) for shape in shapes]
            for q, a in itertools.product(range(len(program.states)), range(len(program.symbols))):
                for table, _ in zip(filled, rules, strict=True):
                    for b in range(table.shape[-1]):
                        table[q, a, b] = next(flat)
            tree = {n: jnp.array(t) for n, t in zip(("write", "state", "move"), filled, strict=True)}
            return float(loss_fn(tree, data).mean())

        return (np.log(mean_loss(-24.0)) - np.log(mean_loss(-28.0))) / 4


def test_a_machine_of_one_state_cannot_err():
    truth = turing(programs.parse("q A -> q A R"), ["A", "AA"], 3)
    assert truth[:2] == (0, 1)
    assert truth.syndromes == ()


def test_two_independent_programs_of_rules_add():
    """One visited rule, one step: every wrong next state breaks alone, so λ counts them."""
    truth = turing(programs.parse("a A -> b A S\na B -> c B S"), ["A", "B"], 1)
    assert truth.learning_coefficient == 2 + 2
    assert truth.multiplicity == 1


def test_wrong_claims_and_running_machines_are_told():
    with pytest.raises(ValueError, match="another function: 'A' gives 'acc', not 'rej'"):
        turing(programs.detect_a(), ["A"], 4, outputs={"A": "rej"})
    with pytest.raises(ValueError, match="another function: 'B' gives 'rej', not None"):
        turing(programs.detect_a(), ["A", "B"], 4, outputs={"A": "acc"})
    with pytest.raises(ValueError, match="has not halted on"):
        turing(programs.detect_a_running(), WORDS, 8, must_halt=True)
    truth = turing(programs.detect_a_running(), ["A", "B"], 8)
    assert truth.running == ("A",)
    assert "still running at the last step on 'A'" in truth.explain()
    halted = turing(
        programs.detect_a(), WORDS, 4, outputs={w: "acc" if "A" in w else "rej" for w in WORDS}, must_halt=True
    )
    assert halted.running == ()


@pytest.mark.parametrize(
    ("inputs", "steps", "message"),
    [
        ([], 4, "inputs"),
        ("AB", 4, "inputs"),
        (None, 4, "inputs"),
        ([3], 4, "every input is a string"),
        (["AC"], 4, "'C'"),
        (["A"], 0, "steps"),
        (["A"], 2.5, "steps"),
    ],
)
def test_bad_arguments_are_named(inputs, steps, message):
    with pytest.raises(ValueError, match=message):
        turing(programs.detect_a(), inputs, steps)


@pytest.mark.parametrize("program", [3, "rej A -> acc A S", None])
def test_what_is_no_program_is_refused(program):
    with pytest.raises(ValueError, match=r"program: got .*parse"):
        turing(program, ["A"], 3)


@pytest.mark.parametrize(
    "broken",
    [
        {"move": ((0, 1, 3),) * 2},
        {"next_state": ((0, 1, 2),) * 2},
        {"write": ((0, 1), (1,))},
        {"write": ((0, 1, -1),) * 2},
    ],
)
def test_tables_that_point_outside_of_themselves_are_refused(broken):
    with pytest.raises(ValueError, match=f"table '{next(iter(broken))}'"):
        turing(programs.detect_a()._replace(**broken), ["A"], 3)


def test_tape_never_ends_within_the_steps_given():
    """Running left or right at full speed for all steps reads the same as the unbounded tape."""
    for direction in "LR":
        program = programs.parse(f"a A -> b A {direction}\nb _ -> a _ {direction}\na _ -> b _ {direction}\n"
                                 f"b A -> a A {direction}")  # fmt: skip
        for steps in (1, 2, 5, 6):
            truth = turing(program, ["A", "AAAAAAAAA"], steps)
            assert truth.outputs == {w: programs.run(program, w, steps).state for w in truth.outputs}


def test_cost_is_within_the_promised_bounds():
    start = time.process_time()
    turing(programs.detect_a(), WORDS, 10)
    assert time.process_time() - start < 1
    start = time.process_time()
    program = programs.brackets()
    truth = turing(program, words("()", 3), 20)
    assert time.process_time() - start < 60
    assert truth.dimension == 180
    verify_certificates(program, words("()", 3), 20, truth)


@pytest.mark.parametrize(
    ("ideal", "value", "face"),
    [
        ([[1, 1]], 1, 1),
        ([[1, 0], [0, 2]], Fraction(3, 2), 0),
        ([[2, 3], [3, 2]], Fraction(2, 5), 0),
        ([[1, 1, 0], [1, 0, 1], [0, 2, 0]], Fraction(3, 2), 1),
        ([[1, 1, 0], [0, 1, 1], [1, 0, 1]], Fraction(3, 2), 0),
        ([[1, 1, 1]], 1, 2),
        ([[1, 1], [3, 0], [0, 3]], 1, 1),
    ],
)
def test_covering_of_monomial_ideals_known_in_closed_form(ideal, value, face):
    rows = np.array(ideal)
    found = solve_covering(rows.shape[1], lambda v, one: rows[rows @ v < one])
    assert found.value == value
    assert found.face_dimension == face


def test_an_oracle_that_contradicts_itself_gets_no_number():
    with pytest.raises(ArithmeticError):
        solve_covering(2, lambda v, one: np.array([[0, 0]]))


@pytest.mark.parametrize(("hidden", "value", "face"), [([[1, 0]], 1, 0), ([[1, 0], [0, 1]], 2, 0), ([[2, 2]], 1, 1)])
def test_exponents_that_floats_overlook_are_found_by_the_exact_stage(hidden, value, face):
    """An oracle that shows some exponents to integer questions only still decides λ and the face."""
    shown = np.array([[1, 1]])
    everything = np.array([[1, 1], *hidden])

    def oracle(v, one):
        rows = shown if v.dtype == float else everything
        return rows[rows @ v < one]

    found = solve_covering(2, oracle)
    assert (found.value, found.face_dimension) == (value, face)


def test_a_wrong_answer_of_the_linear_programme_is_refused(monkeypatch):
    import scipy.optimize

    solve = scipy.optimize.linprog

    def tampered(*arguments, **settings):
        answer = solve(*arguments, **settings)
        answer.x = answer.x * 1.01
        return answer

    rows = np.array([[1, 1, 0], [1, 0, 1], [0, 1, 1]])
    assert solve_covering(3, lambda v, one: rows[rows @ v < one]).value == Fraction(3, 2)
    monkeypatch.setattr(scipy.optimize, "linprog", tampered)
    with pytest.raises(ArithmeticError, match="could not be certified"):
        solve_covering(3, lambda v, one: rows[rows @ v < one])


def test_random_machines_of_the_tests_are_not_trivial():
    """Most of them can err, with different λ and m, or the comparisons above would say little."""
    truths = []
    for seed in range(2000, 2030):
        _, program, inputs, _, _ = random_case(seed, 3, 2)
        truths.append(turing(program, ["".join(program.symbols[a] for a in word) for word in inputs], 3)[:2])
    assert sum(value > 0 for value, _ in truths) > 20
    assert len({value for value, _ in truths}) > 5
    assert len({m for _, m in truths}) > 1
