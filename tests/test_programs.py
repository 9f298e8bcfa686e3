"""Programs: their text, what they compute, and the smooth relaxation that equals them at their own codes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slt_jax import programs


def words(alphabet, shortest, longest):
    return ["".join(p) for n in range(shortest, longest + 1) for p in itertools.product(alphabet, repeat=n)]


def is_balanced(word):
    depth = 0
    for symbol in word:
        depth += 1 if symbol == "(" else -1
        if depth < 0:
            return False
    return depth == 0


LIBRARY = [
    (programs.detect_a(), words("AB", 0, 6), 9, lambda w: "acc" if "A" in w else "rej", True),
    (programs.detect_a_running(), words("AB", 0, 6), 9, lambda w: "acc" if "A" in w else "rej", False),
    (programs.detect_a_overwriting(), words("AB", 0, 6), 9, lambda w: "acc" if "A" in w else "rej", True),
    (programs.parity(), words("AB", 0, 6), 7, lambda w: ("even", "odd")[w.count("A") % 2], True),
    (programs.binary_increment(), words("01", 0, 6), 14, lambda w: "done" if "0" in w else "grown", True),
    (programs.palindrome(), words("AB", 0, 6), 28, lambda w: "yes" if w == w[::-1] else "no", True),
    (programs.brackets(), words("()", 0, 6), 64, lambda w: "yes" if is_balanced(w) else "no", True),
]


@pytest.mark.parametrize(("program", "inputs", "steps", "function", "halts"), LIBRARY)
def test_every_program_computes_its_function(program, inputs, steps, function, halts):
    programs.check(program, {word: function(word) for word in inputs}, steps, must_halt=halts)


@pytest.mark.parametrize(("program", "inputs", "steps", "function", "halts"), LIBRARY)
def test_a_program_fails_the_check_of_another_function(program, inputs, steps, function, halts):
    claims = {word: function(word) for word in inputs}
    claims[inputs[5]] = next(state for state in program.states if state != claims[inputs[5]])
    with pytest.raises(ValueError, match="computes another function"):
        programs.check(program, claims, steps, must_halt=halts)


def test_a_program_still_running_is_told():
    with pytest.raises(ValueError, match="has not halted on 'A'"):
        programs.check(programs.detect_a_running(), {"A": "acc"}, 50)
    with pytest.raises(ValueError, match="has not halted on 'BBB'"):
        programs.check(programs.detect_a(), {"BBB": "rej"}, 2)


def test_binary_increment_adds_one_on_the_tape():
    for number in range(1, 70):
        digits = f"{number:b}"
        assert programs.run(programs.binary_increment(), digits, 2 * len(digits) + 2).tape == f"{number + 1:b}"


def test_stated_step_bounds_are_enough():
    for word in words("AB", 0, 7):
        n = len(word)
        assert programs.run(programs.palindrome(), word, (n + 1) * (n + 2) // 2).halted
    for word in words("()", 0, 8):
        assert programs.run(programs.brackets(), word, (len(word) + 2) ** 2).halted


def test_tape_is_unbounded_both_ways():
    left = programs.parse("a A -> a A L\na _ -> a A L")
    assert programs.run(left, "A", 100).tape == "A" * 100
    assert programs.run(left, "A", 100).head == -100
    assert not programs.run(left, "A", 100).halted


def test_trace_starts_before_the_first_step_and_ends_after_the_last():
    runs = list(programs.trace(programs.detect_a(), "BA", 3))
    assert [run.head for run in runs] == [0, 1, 1, 1]
    assert [run.state for run in runs] == ["rej", "rej", "acc", "acc"]
    assert [run.halted for run in runs] == [False, False, True, True]


def test_text_round_trip_keeps_every_run():
    for program, inputs, steps, _, _ in LIBRARY:
        again = programs.parse(programs.render(program))
        assert all(programs.run(again, word, steps) == programs.run(program, word, steps) for word in inputs)


def test_a_missing_rule_halts_in_place():
    program = programs.parse("a A -> b A R")
    assert programs.run(program, "AA", 9) == programs.Run("b", "AA", 1, True)
    assert program.given == ((False, True), (False, False))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rule"),
        ("# only a comment", "no rule"),
        ("a A -> b A", "line 1"),
        ("a A => b A R", "line 1"),
        ("a A -> b A R\n\na B -> b BB R", "line 3.*'BB'"),
        ("a A -> b A U", "move 'U'"),
        ("a A -> b A R\na A -> a A R", "two rules for state 'a' reading 'A'"),
    ],
)
def test_bad_text_is_told_with_its_line(text, message):
    with pytest.raises(ValueError, match=message):
        programs.parse(text)


def test_bad_words_and_steps_are_named():
    program = programs.detect_a()
    with pytest.raises(ValueError, match="'C'"):
        programs.run(program, "ACA", 3)
    with pytest.raises(ValueError, match="steps"):
        programs.run(program, "A", -1)
    with pytest.raises(ValueError, match="steps"):
        programs.tapes_of(program, ["A"], 0)
    with pytest.raises(ValueError, match="inputs"):
        programs.tapes_of(program, "AB", 3)
    with pytest.raises(ValueError, match="no final state claimed for"):
        programs.turing_problem(program, ["A", "B"], 3, outputs={"A": "acc"})
    with pytest.raises(ValueError, match="another function"):
        programs.turing_problem(program, ["A", "B"], 3, outputs={"A": "acc", "B": "acc"})


@pytest.mark.parametrize(
    "use",
    [
        lambda program: programs.run(program, "A", 3),
        lambda program: programs.tapes_of(program, ["A"], 3),
        lambda program: programs.turing_problem(program, ["A"], 3),
        programs.code_of,
        programs.dimension,
        programs.render,
    ],
)
@pytest.mark.parametrize("program", [3, "rej A -> acc A S", programs.detect_a()._replace(move=((0, 1, 3),) * 2)])
def test_what_is_no_program_is_refused(use, program):
    with pytest.raises(ValueError, match=r"program: .*parse"):
        use(program)


def test_arguments_of_the_wrong_type_are_named():
    program = programs.detect_a()
    with pytest.raises(ValueError, match="text: got 3"):
        programs.parse(3)
    with pytest.raises(ValueError, match="word: got 3"):
        programs.run(program, 3, 3)
    with pytest.raises(ValueError, match=r"steps: got 2\.5"):
        programs.run(program, "A", 2.5)
    with pytest.raises(ValueError, match=r"outputs: got .*mapping"):
        programs.check(program, ["A"], 3)
    with pytest.raises(ValueError, match="inputs: got None"):
        programs.turing_problem(program, None, 3)


def test_dimension_counts_the_error_coordinates():
    for program, inputs, _, _, _ in LIBRARY:
        errors = programs.turing_problem(program, inputs[1:3], 2).params
        assert sum(leaf.size for leaf in jax.tree.leaves(errors)) == programs.dimension(program)


@pytest.mark.parametrize(("program", "inputs", "steps", "function", "halts"), LIBRARY)
def test_relaxation_at_a_program_is_the_program(program, inputs, steps, function, halts):
    steps = min(steps, 30)
    final = programs.smooth_run(programs.code_of(program), programs.tapes_of(program, inputs, steps))
    states = [program.states.index(programs.run(program, word, steps).state) for word in inputs]
    assert (final == np.eye(len(program.states))[states]).all()


def random_code(seed, states, symbols):
    keys = jax.random.split(jax.random.key(seed), 3)
    tables = zip(keys, (symbols, states, 3), strict=True)
    return programs.Code(*(jax.random.dirichlet(k, jnp.ones(width), (states, symbols)) for k, width in tables))


def two_steps_by_hand(code, word):
    """The definition with explicit loops, on an absolute tape of five cells around the head."""
    write, following, move = (np.asarray(table, float) for table in code)
    states, symbols = write.shape[:2]
    tape = [np.eye(symbols)[word[u] if 0 <= u < len(word) else 0] for u in range(-2, 3)]
    state = np.eye(states)[0]
    for _ in range(2):
        joint = np.outer(state, tape[2])
        written, state, moves = (np.tensordot(joint, table, 2) for table in (write, following, move))
        old = [*tape[:2], written, *tape[3:]]
        pad = [np.eye(symbols)[0], *old, np.eye(symbols)[0]]
        tape = [sum(moves[m] * pad[u + m] for m in range(3)) for u in range(5)]
    return state


@pytest.mark.parametrize("seed", range(4))
def test_relaxation_follows_its_definition_and_keeps_probability(seed):
    program = programs.parity()
    code = random_code(seed, 2, 3)
    final = programs.smooth_run(code, programs.tapes_of(program, ["A", "BA", "AAA"], 2))
    for row, word in zip(final, ["A", "BA", "AAA"], strict=True):
        by_hand = two_steps_by_hand(code, [program.symbols.index(s) for s in word])
        np.testing.assert_allclose(row, by_hand, rtol=2e-6)
    np.testing.assert_allclose(final.sum(1), 1, rtol=2e-6)


def staged_by_hand(code, word, order):
    """Two cycles, the description tape scanned rule by rule, each match copied over what is staged."""
    write, following, move = (np.asarray(table, float) for table in code)
    symbols = write.shape[1]
    tape = [np.eye(symbols)[word[u] if 0 <= u < len(word) else 0] for u in range(-2, 3)]
    state = np.eye(write.shape[0])[0]
    for _ in range(2):
        head = tape[2].copy()
        staged = (head, state, np.eye(3)[1])
        for rule in order:
            q, a = divmod(rule, symbols)
            match = state[q] * head[a]
            ahead = (write[q, a], following[q, a], move[q, a])
            staged = tuple(match * new + (1 - match) * old for new, old in zip(ahead, staged, strict=True))
        written, state, moves = staged
        pad = [np.eye(symbols)[0], *tape[:2], written, *tape[3:], np.eye(symbols)[0]]
        tape = [sum(moves[m] * pad[u + m] for m in range(3)) for u in range(5)]
    return state


@pytest.mark.parametrize("order", [None, [5, 0, 3, 1, 4, 2], [0, 4]])
def test_the_staged_machine_scans_its_rules_one_by_one(order):
    program, code = programs.parity(), random_code(2, 2, 3)
    tapes = programs.tapes_of(program, ["A", "BA", "AAA"], 2)
    final = programs.staged_run(code, tapes, order)
    for row, word in zip(final, ["A", "BA", "AAA"], strict=True):
        by_hand = staged_by_hand(code, [program.symbols.index(s) for s in word], range(6) if order is None else order)
        np.testing.assert_allclose(row, by_hand, rtol=2e-6)
    np.testing.assert_allclose(final.sum(1), 1, rtol=2e-6)


def test_the_staged_machine_is_the_program_at_a_program_and_another_machine_elsewhere():
    program = programs.detect_a()
    inputs = words("AB", 1, 3)
    tapes = programs.tapes_of(program, inputs, 6)
    exact = programs.smooth_run(programs.code_of(program), tapes)
    for order in (None, [5, 4, 3, 2, 1, 0]):
        assert (programs.staged_run(programs.code_of(program), tapes, order) == exact).all()
    code = random_code(3, 2, 3)
    direct, first, second = (
        programs.smooth_run(code, tapes),
        programs.staged_run(code, tapes),
        programs.staged_run(code, tapes, [5, 4, 3, 2, 1, 0]),
    )
    assert min(np.abs(direct - first).max(), np.abs(direct - second).max(), np.abs(first - second).max()) > 1e-2
    # without a rule for B the staged machine waits where it reads one
    waiting = programs.staged_run(programs.code_of(program), tapes, [r for r in range(6) if r != 1])
    assert waiting[inputs.index("BA"), 0] == 1
    assert waiting[inputs.index("A"), 1] == 1


@pytest.mark.parametrize("order", [[0, 0], [6], [[0]], [0.5], "ab"])
def test_a_description_tape_with_impossible_rules_is_refused(order):
    tapes = programs.tapes_of(programs.parity(), ["A"], 2)
    with pytest.raises(ValueError, match="order: got"):
        programs.staged_run(programs.code_of(programs.parity()), tapes, order)


def test_a_wider_tape_changes_no_output():
    program, code = programs.detect_a(), random_code(7, 2, 3)
    inputs = words("AB", 1, 4)
    tight = programs.tapes_of(program, inputs, 4)
    wide = programs.tapes_of(program, inputs, 9)
    state, start = [], jnp.array([1.0, 0.0])
    for tape in wide:
        marginal = start
        for _ in range(4):
            marginal, tape = programs.smooth_step(code, marginal, tape)
        state.append(marginal)
    np.testing.assert_allclose(programs.smooth_run(code, tight), jnp.stack(state), rtol=1e-6)
    narrow = tight[:, 2:-2]
    assert np.abs(programs.smooth_run(code, narrow) - jnp.stack(state)).max() > 1e-3  # two steps only


def test_relaxation_maps_over_codes():
    tapes = programs.tapes_of(programs.parity(), ["A", "AB"], 3)
    codes = [random_code(seed, 2, 3) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *codes)
    mapped = jax.jit(jax.vmap(programs.smooth_run, in_axes=(0, None)))(stacked, tapes)
    for row, code in zip(mapped, codes, strict=True):
        np.testing.assert_allclose(row, programs.smooth_run(code, tapes), rtol=1e-6)


def random_errors(seed, errors, scale):
    leaves, tree = jax.tree.flatten(errors)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return jax.tree.unflatten(
        tree, [scale * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    )


@pytest.mark.parametrize("scale", [0.0, 1e-6, 0.05, 0.5, 5.0])
def test_error_coordinates_always_give_distributions_and_finite_gradients(scale):
    program = programs.detect_a()
    loss_fn, errors, data = programs.turing_problem(program, words("AB", 1, 3), 6)
    rules = programs.Code(*(jnp.array(t) for t in (program.write, program.next_state, program.move)))
    moved = random_errors(3, errors, scale)
    for table in programs.code_from_errors(rules, moved):
        assert (table >= -1e-6).all()
        np.testing.assert_allclose(table.sum(-1), 1, atol=2e-6)
    losses = loss_fn(moved, data)
    gradient = jax.grad(lambda z: loss_fn(z, data).mean())(moved)
    assert losses.shape == (14,)
    assert all(np.isfinite(leaf).all() for leaf in [losses, *jax.tree.leaves(gradient)])
    assert (losses >= -1e-6).all()
    assert (losses.max() > 0) == (scale > 0)


def test_error_coordinates_name_the_entries_of_the_code():
    """Raising one coordinate moves probability from the rule to exactly one wrong entry."""
    program = programs.parity()
    rules = programs.Code(*(jnp.array(t) for t in (program.write, program.next_state, program.move)))
    errors = programs.turing_problem(program, ["A"], 2).params
    exact = programs.code_of(program)
    for name in errors:
        for index in np.ndindex(errors[name].shape):
            moved = dict(errors, **{name: errors[name].at[index].set(-0.25)})
            change = getattr(programs.code_from_errors(rules, moved), name) - getattr(exact, name)
            wrong = [b for b in range(change.shape[-1]) if b != getattr(rules, name)[index[:2]]]
            assert change[*index[:2], wrong[index[2]]] == 0.25
            assert change[*index[:2], getattr(rules, name)[index[:2]]] == -0.25
            assert np.abs(change).sum() == 0.5


def test_loss_is_minus_log_probability_of_the_output():
    program, inputs = programs.detect_a(), words("AB", 1, 3)
    loss_fn, errors, data = programs.turing_problem(program, inputs, 5)
    rules = programs.Code(*(jnp.array(t) for t in (program.write, program.next_state, program.move)))
    moved = random_errors(1, errors, 0.3)
    final = programs.smooth_run(programs.code_from_errors(rules, moved), data["tape"])
    output = [program.states.index("acc" if "A" in word else "rej") for word in inputs]
    expected = -np.log(np.asarray(final)[np.arange(len(inputs)), output])
    np.testing.assert_allclose(loss_fn(moved, data), expected, rtol=1e-4)
    assert expected.max() > 0.7  # both branches of the loss were used
    assert expected.min() < 0.6


def test_small_losses_keep_their_relative_accuracy_in_single_precision():
    """One wrong next state of probability 1e-12 costs 1e-12 nats: -log(1 - 1e-12) would round to 0."""
    loss_fn, errors, data = programs.turing_problem(programs.parity(), ["A"], 1)
    moved = dict(errors, state=errors["state"].at[0, 1, 0].set(1e-12))
    np.testing.assert_allclose(loss_fn(moved, data), 1e-12, rtol=1e-6)
