"""The smooth relaxation of a Turing machine: distributions over symbols, states and moves, run step by step.

One assumption makes it: the state and the cells of the tape are kept as independent marginals. After every step their
joint distribution is replaced by the product of its marginals, so uncertainty spreads but correlations are forgotten.
At a deterministic code nothing is lost and the relaxation is the machine itself.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax.problem import Problem
from slt_jax.programs.interpreter import check, encode_word, run
from slt_jax.programs.program import MOVES, Program, check_program
from slt_jax.types import Array, PyTree


class Code(NamedTuple):
    """A point of the space of codes: for every state q and symbol a three distributions.

    With Q states and A symbols, ``q`` and ``a`` index the first two axes.

    Attributes:
      write: ``(Q, A, A)``, probabilities of the symbol written.
      state: ``(Q, A, Q)``, probabilities of the next state.
      move: ``(Q, A, 3)``, probabilities of moving left, staying, moving right.

    >>> Code(jnp.eye(2)[None], jnp.ones((1, 2, 1)), jnp.eye(3)[None, :2]).move.shape
    (1, 2, 3)
    """

    write: Array
    state: Array
    move: Array


def code_of(program: Program) -> Code:
    """Place a program at its vertex of the space of codes: every distribution puts all its mass on the rule.

    Args:
      program: The tables, of Q states and A symbols.

    Returns:
      One-hot tables, of the default floating-point type.

    Raises:
      ValueError: if it is no program.

    When not to believe it: always exact.

    Source: Clift, Murfet and Wallbridge (2021), arXiv 2103.16080.

    >>> from slt_jax.programs.program import parse
    >>> code_of(parse("even A -> odd A R")).state[0, 1]
    Array([0., 1.], dtype=float32)
    """
    check_program(program)
    return Code(
        jax.nn.one_hot(np.array(program.write), len(program.symbols)),
        jax.nn.one_hot(np.array(program.next_state), len(program.states)),
        jax.nn.one_hot(np.array(program.move), len(MOVES)),
    )


def tapes_of(program: Program, inputs: Sequence[str], steps: int) -> Array:
    """Write every input on its own tape, wide enough that the edge cannot matter within the steps given.

    Cells are numbered from the head, ``-steps … steps``; a cell farther than ``steps`` away can never reach the head,
    so leaving it out changes no state, however long the input.

    Args:
      program: The tables, of A symbols.
      inputs: Strings over the alphabet; the head starts on the first symbol.
      steps: Number of steps the tape must serve.

    Returns:
      One-hot symbols ``(inputs, 2 steps + 1, A)``, the head on the middle cell.

    Raises:
      ValueError: if it is no program, ``inputs`` is empty or one string, a symbol is unknown, or ``steps`` is no whole
        number or below 1.

    When not to believe it: after ``steps`` steps the cells away from the head are not those of the unbounded tape.

    Source: the tape relative to the head is that of Clift, Murfet and Wallbridge (2021), arXiv 2103.16080.

    >>> from slt_jax.programs.program import parse
    >>> tapes_of(parse("even A -> odd A R"), ["A", "AA"], 3).shape
    (2, 7, 2)
    """
    check_program(program)
    if not isinstance(inputs, Sequence) or isinstance(inputs, str) or len(inputs) == 0:
        raise ValueError(f"inputs: got {inputs!r}; give a list of at least one string")
    if not hasattr(steps, "__index__") or isinstance(steps, bool) or steps < 1:
        raise ValueError(f"steps: got {steps!r}; give the number of steps to run, a whole number, 1 or more")
    cells = np.zeros((len(inputs), 2 * steps + 1), int)
    for row, word in zip(cells, inputs, strict=True):
        symbols = encode_word(program, word)[: steps + 1]
        row[steps : steps + len(symbols)] = symbols
    return jax.nn.one_hot(cells, len(program.symbols))


def smooth_step(code: Code, state: Array, tape: Array) -> tuple[Array, Array]:
    """Propagate uncertainty through one step of the machine.

    ``h(q, a) = state(q) x(a)`` with ``x`` the cell under the head; the symbol written, the next state and the move
    are mixtures of the code's distributions under ``h``; then
    ``tape'(u) = Σ_m move(m) (tape with the head's cell rewritten)(u + m)``.

    Args:
      code: The distributions.
      state: ``(Q,)``, probabilities.
      tape: ``(cells, A)``, probabilities of each cell, the head on the middle one.

    Returns:
      The next state and tape, of the same shapes. Blanks enter at the edges.

    When not to believe it: cells are treated as independent of each other and of the state; at a code that is not
    deterministic this is not the law of the random machine.

    Source: Clift and Murfet (2019), arXiv 1805.11813; Clift, Murfet and Wallbridge (2021), arXiv 2103.16080.

    >>> from slt_jax.programs.program import parse
    >>> program = parse("even A -> odd A R")
    >>> state, tape = smooth_step(code_of(program), jnp.array([1.0, 0.0]), tapes_of(program, ["A"], 1)[0])
    >>> state
    Array([0., 1.], dtype=float32)
    """
    joint = jnp.einsum("q,a->qa", state, tape[tape.shape[0] // 2])
    written, following, move = (jnp.einsum("qa,qab->b", joint, table) for table in code)
    return following, moved(tape, written, move)


def moved(tape: Array, written: Array, move: Array) -> Array:
    """The tape around the head after writing and moving, all of it in distribution; blanks enter at the edges.

    >>> moved(jnp.eye(2)[jnp.array([0, 1, 1])], jnp.array([1.0, 0.0]), jnp.array([0.0, 0.0, 1.0]))[:, 1]
    Array([0., 1., 0.], dtype=float32)
    """
    tape = tape.at[tape.shape[0] // 2].set(written)
    blank = jnp.zeros_like(tape[:1]).at[0, 0].set(1.0)
    moved_left = jnp.concatenate([blank, tape[:-1]])
    moved_right = jnp.concatenate([tape[1:], blank])
    return move[0] * moved_left + move[1] * tape + move[2] * moved_right


def smooth_run(code: Code, tapes: Array) -> Array:
    """Run the relaxed machine on many tapes at once and return the distribution of its final state.

    The number of steps is what the tapes were made for: ``(cells - 1) / 2``. Differentiable in the code, and
    ``jax.vmap`` over codes works as it stands.

    Args:
      code: The distributions.
      tapes: ``(inputs, cells, A)``, as from ``tapes_of``.

    Returns:
      ``(inputs, Q)``: probability of each final state.

    When not to believe it: see ``smooth_step``: marginals are propagated, not the joint law.

    Source: Clift, Murfet and Wallbridge (2021), arXiv 2103.16080.

    >>> from slt_jax.programs.examples import parity
    >>> smooth_run(code_of(parity()), tapes_of(parity(), ["A", "BAA"], 4))
    Array([[0., 1.],
           [1., 0.]], dtype=float32)
    """
    start = jnp.zeros_like(code.state[0, 0]).at[0].set(1.0)

    def one(tape: Array) -> Array:
        def body(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
            return smooth_step(code, *carry), None

        return jax.lax.scan(body, (start, tape.astype(start.dtype)), None, length=tape.shape[0] // 2)[0][0]

    return jax.vmap(one)(tapes)


def code_from_errors(rules: Code, errors: PyTree) -> Code:
    """Move away from a deterministic code by error coordinates: the library's chart at a program.

    Every distribution ``p`` with rule ``r`` has one coordinate ``z`` for each wrong entry, in table order, and
    ``p(wrong) = |z|``, ``p(r) = 1 - Σ |z|``. So ``z = 0`` is the program, and Lebesgue measure in ``z`` near 0 is the
    uniform prior on codes, folded ``2^d`` times: the learning coefficient is that of the space of codes. Where
    ``r = Σ |z|`` exceeds 1 the point is folded back along its ray, to the radius ``|((r + 1) mod 2) - 1|``.

    Args:
      rules: Integer tables ``(Q, A)`` each: the index of the rule in ``write``, ``state`` and ``move``.
      errors: Mapping of ``"write"``, ``"state"``, ``"move"`` to ``(Q, A, A-1)``, ``(Q, A, Q-1)``, ``(Q, A, 2)``.

    Returns:
      The distributions: non-negative, each summing to 1.

    When not to believe it: far from 0 (``Σ |z| > 1``) the measure is no longer the uniform prior, and other copies of
    the program lie at radius 2, 4, …; keep the posterior local.

    Source: the chart is this library's; the space of codes is that of Clift, Murfet and Wallbridge (2021),
    arXiv 2103.16080.

    >>> rules = Code(jnp.array([[1, 0]]), jnp.array([[0, 0]]), jnp.array([[1, 1]]))
    >>> errors = {"write": jnp.full((1, 2, 1), -0.25), "state": jnp.zeros((1, 2, 0)), "move": jnp.zeros((1, 2, 2))}
    >>> code_from_errors(rules, errors).write[0]
    Array([[0.25, 0.75],
           [0.75, 0.25]], dtype=float32)
    """
    return Code(*(_distributions(rule, errors[name]) for name, rule in zip(Code._fields, rules, strict=True)))


def turing_problem(
    program: Program, inputs: Sequence[str], steps: int, outputs: Mapping[str, str] | None = None
) -> Problem:
    """Make a program a problem: the loss of codes near it at predicting its own outputs.

    ``loss(z; x) = -log p(y(x) | x, code(z))`` with ``y(x)`` the state the program ends in on ``x``; 0 at ``z = 0``.

    Args:
      program: The tables.
      inputs: Strings over the alphabet; each is one example, weighted equally.
      steps: Number of steps run.
      outputs: The final states claimed, by input; checked if given.

    Returns:
      ``loss_fn(errors, batch)`` in nats, ``(B,)``; ``params`` the error coordinates of ``code_from_errors``, all 0;
      ``data`` a mapping of ``"tape"`` ``(n, 2 steps + 1, A)`` and ``"output"`` ``(n,)``, state indices.

    Raises:
      ValueError: if ``inputs`` or ``steps`` is out of range, a symbol is unknown, or the program computes another
        function than ``outputs`` claims.

    When not to believe it: the loss has kinks at ``z = 0``, so its Hessian there means nothing. ``n`` is the number
    of inputs, so give a sampler its own ``nbeta``. In float32 the loss is accurate to relative, not absolute, 1e-6.

    Source: Clift, Murfet and Wallbridge (2021), arXiv 2103.16080.

    >>> from slt_jax.programs.examples import detect_a
    >>> loss_fn, errors, data = turing_problem(detect_a(), ["A", "BA", "B"], steps=4)
    >>> loss_fn(errors, data)
    Array([0., 0., 0.], dtype=float32)
    """
    tapes = tapes_of(program, inputs, steps)
    if outputs is not None:
        missing = sorted(set(inputs) - set(outputs))
        if missing:
            raise ValueError(f"outputs: no final state claimed for {missing[:5]}; give one for every input")
        check(program, {word: outputs[word] for word in inputs}, steps, must_halt=False)
    final = [program.states.index(run(program, word, steps).state) for word in inputs]
    rules = Code(*(jnp.array(table) for table in (program.write, program.next_state, program.move)))
    widths = zip(Code._fields, (len(program.symbols), len(program.states), len(MOVES)), strict=True)
    errors = {name: jnp.zeros((*rules.write.shape, width - 1)) for name, width in widths}
    return Problem(jax.tree_util.Partial(_loss, rules), errors, {"tape": tapes, "output": jnp.array(final)})


def _distributions(rule: Array, errors: Array) -> Array:
    radius = jnp.abs(errors).sum(-1, keepdims=True)
    folded = jnp.abs((radius + 1) % 2 - 1)
    # within the simplex the factor is exactly 1, so small errors keep their relative accuracy
    wrong = jnp.abs(errors) * jnp.where(radius > 1, folded / jnp.where(radius > 1, radius, 1.0), 1.0)
    return placed(rule, 1 - wrong.sum(-1, keepdims=True), wrong)


def placed(rule: Array, right: Array, wrong: Array) -> Array:
    """Put the probability of the rule at its entry of each distribution and those of the wrong entries around it.

    >>> placed(jnp.array([[1]]), jnp.array([[[0.7]]]), jnp.array([[[0.1, 0.2]]]))[0, 0]
    Array([0.1, 0.7, 0.2], dtype=float32)
    """
    column = jnp.arange(wrong.shape[-1] + 1)[None, None, :]
    # entry b of the table is the rule itself, or the wrong entry numbered without the rule
    source = jnp.where(column == rule[..., None], 0, column + (column < rule[..., None]))
    return jnp.take_along_axis(jnp.concatenate([right, wrong], -1), source, axis=-1)


def _loss(rules: Code, errors: PyTree, batch: PyTree) -> Array:
    return surprise(code_from_errors(rules, errors), batch)


def surprise(code: Code, batch: PyTree) -> Array:
    """``-log p(y(x) | x, code)`` in nats, ``(B,)``, to full relative accuracy where the code is nearly right.

    Args:
      code: The distributions.
      batch: ``"tape"`` ``(B, cells, A)`` and ``"output"`` ``(B,)``, as the data of ``turing_problem``.

    >>> from slt_jax.programs.examples import parity
    >>> data = turing_problem(parity(), ["A"], 2).data
    >>> surprise(code_of(parity()), data)
    Array([0.], dtype=float32)
    """
    final = smooth_run(code, batch["tape"])
    is_output = jnp.arange(final.shape[-1])[None, :] == batch["output"][:, None]
    wrong = jnp.where(is_output, 0.0, final).sum(-1)
    right = jnp.where(is_output, final, 0.0).sum(-1)
    # near the program log1p(-wrong) keeps what log(right) would round away; the inner wheres keep gradients finite
    near = wrong < 0.5
    return -jnp.where(near, jnp.log1p(-jnp.where(near, wrong, 0.0)), jnp.log(jnp.where(near, 1.0, right)))
