"""A Turing machine run in the (min, +) semiring: how fast each of its marginals vanishes along u = t^v.

Near a deterministic code every marginal of the smooth machine is a polynomial in the error coordinates ``u ≥ 0`` and
in the probabilities ``1 - Σ u`` of the rules themselves, built by sums and products alone. Its coefficients in these
letters are positive, so nothing cancels; the rules' own probabilities are near 1 and change no order. Hence the order
of a sum is the smallest order of its terms, the order of a product their sum, and one run of the machine in that
arithmetic gives the order of every marginal and a monomial that attains it.
"""

from typing import Any, NamedTuple, Protocol

import numpy as np

#: Exponents are cut off here so that sums of three cannot wrap round; a monomial that reaches it is refused.
DEGREE_LIMIT = 2**60
_PARSE = "slt_jax.programs.parse"


class MachineTables(Protocol):
    """What is read of a program: names of states and symbols, and integer tables ``[state][symbol]``.

    State 0 starts, symbol 0 is the blank, moves are 0 left, 1 stay, 2 right. Any object with these attributes will do.
    """

    @property
    def states(self) -> tuple[str, ...]: ...
    @property
    def symbols(self) -> tuple[str, ...]: ...
    @property
    def write(self) -> tuple[tuple[int, ...], ...]: ...
    @property
    def next_state(self) -> tuple[tuple[int, ...], ...]: ...
    @property
    def move(self) -> tuple[tuple[int, ...], ...]: ...


def check_tables(program: Any) -> None:
    """Refuse what is no program, or tables that point outside of themselves.

    Raises:
      ValueError: naming what is missing, or the table and its widest index.

    >>> check_tables(3)
    Traceback (most recent call last):
      ...
    ValueError: program: got 3, which has no 'states'; pass a program, as from slt_jax.programs.parse
    """
    for name in ("states", "symbols", "write", "next_state", "move"):
        if not hasattr(program, name):
            raise ValueError(f"program: got {program!r}, which has no {name!r}; pass a program, as from {_PARSE}")
    shape = len(program.states), len(program.symbols)
    widths = {"write": shape[1], "next_state": shape[0], "move": 3}
    for name, width in widths.items():
        rows = [tuple(row) for row in getattr(program, name)]
        if [len(row) for row in rows] != [shape[1]] * shape[0] or not {a for row in rows for a in row} <= {
            *range(width)
        }:
            raise ValueError(
                f"program: table {name!r} must be {shape[0]} rows of {shape[1]} whole numbers from 0 to {width - 1}, "
                f"got {getattr(program, name)!r}; write the rules as text for {_PARSE}"
            )


class Machine(NamedTuple):
    """A program with its error coordinates numbered ``0 … d-1`` and its inputs written on tapes.

    Attributes:
      write: ``(QA, A)``: the coordinate of each entry of the code, ``d`` where the entry is the rule itself.
      state: ``(QA, Q)``, likewise.
      move: ``(QA, 3)``, likewise.
      tapes: ``(n, 2T + 1)``: symbol indices, the head on the middle cell, ``T`` the number of steps.
      names: ``d`` sentences, one an error coordinate.
    """

    write: np.ndarray
    state: np.ndarray
    move: np.ndarray
    tapes: np.ndarray
    names: tuple[str, ...]


class Orders(NamedTuple):
    """The orders of some marginals and monomials attaining them.

    Attributes:
      order: ``(n, k)``: order of vanishing, the ceiling if it is that or more.
      exponent: ``(n, k, d)``: exponents of one monomial of that order; meaningless at the ceiling.
    """

    order: np.ndarray
    exponent: np.ndarray


def build_machine(program: MachineTables, inputs: list[tuple[int, ...]], steps: int) -> Machine:
    """Number the error coordinates of a program and write its inputs on tapes.

    Coordinates run over states, then symbols; within a rule over wrong symbols, wrong states, wrong moves.

    >>> from slt_jax.programs import parity
    >>> build_machine(parity(), [(1,)], 2).names[0]
    'writing A instead of _ in state even reading _'
    """
    states, symbols, moves = len(program.states), len(program.symbols), 3
    widths = (symbols, states, moves)
    rules = [np.array(table).reshape(-1) for table in (program.write, program.next_state, program.move)]
    entries = [(r, part, b) for r in range(states * symbols) for part in range(3) for b in range(widths[part])]
    errors = [(r, part, b) for r, part, b in entries if b != rules[part][r]]
    tables = [np.full((states * symbols, width), len(errors)) for width in widths]
    for coordinate, (rule, part, entry) in enumerate(errors):
        tables[part][rule, entry] = coordinate
    tapes = np.zeros((len(inputs), 2 * steps + 1), int)
    for row, word in zip(tapes, inputs, strict=True):
        reach = word[: steps + 1]  # farther cells cannot come under the head in time
        row[steps : steps + len(reach)] = reach
    names = tuple(_sentence(program, *error, int(rules[error[1]][error[0]])) for error in errors)
    write, state, move = tables
    return Machine(write, state, move, tapes, names)


def final_orders(machine: Machine, weights: np.ndarray, ceiling: Any) -> Orders:
    """Run the machine in the (min, +) semiring and return the orders of its final states.

    Weights may be floats or integers (``object`` for big ones); every order is cut off at ``ceiling``, which loses
    nothing below it because no weight is negative. Exact in integers.

    Args:
      machine: ``n`` inputs, ``Q`` states, ``d`` coordinates.
      weights: ``(d,)``, not negative: the order of each error coordinate.
      ceiling: Orders from here on are not told apart.

    Returns:
      Orders of the ``n × Q`` probabilities of the final states.

    When not to believe it: an exponent that reaches ``DEGREE_LIMIT`` was cut off there.

    Source: the relaxation is that of Clift, Murfet and Wallbridge (2021), arXiv 2103.16080, read in (min, +).

    >>> from slt_jax.programs import parity
    >>> machine = build_machine(parity(), [(1,), (1, 1)], 2)
    >>> final_orders(machine, np.ones(30, int), 9).order.tolist()
    [[1, 0], [0, 1]]
    """
    steps, dimension = machine.tapes.shape[1] // 2, len(machine.names)
    costs = np.append(weights, 0).astype(weights.dtype)  # the rule itself costs nothing
    symbols, states = machine.write.shape[1], machine.state.shape[1]
    tape = _certain(machine.tapes, symbols, costs.dtype, ceiling, dimension)
    state = _certain(np.zeros(len(machine.tapes), int), states, costs.dtype, ceiling, dimension)
    for _ in range(steps):
        state, tape = _step(machine, costs, ceiling, state, tape)
    return state


def certain_runs(machine: Machine, program: MachineTables) -> tuple[list[int], list[bool]]:
    """Follow the order-zero marginals alone, the deterministic run: final state and whether it has halted, by input."""
    states, halted = [], []
    for word in machine.tapes:
        tape, state, head = word.tolist(), 0, len(word) // 2
        for _ in range(len(word) // 2):
            read = tape[head]
            tape[head] = program.write[state][read]
            state, head = program.next_state[state][read], head + program.move[state][read] - 1
        # the head may stand on the last cell, never beyond it
        read = tape[head]
        rule = (program.next_state[state][read], program.write[state][read], program.move[state][read])
        states.append(state)
        halted.append(rule == (state, read, 1))
    return states, halted


def _step(machine: Machine, costs: np.ndarray, ceiling: Any, state: Orders, tape: Orders) -> tuple[Orders, Orders]:
    head = tape.order.shape[1] // 2
    count, dimension = len(state.order), state.exponent.shape[-1]
    joint = Orders(
        (state.order[:, :, None] + tape.order[:, head, None, :]).reshape(count, -1),
        (state.exponent[:, :, None] + tape.exponent[:, head, None, :]).reshape(count, -1, dimension),
    )
    written, following, move = (
        _mixture(joint, table, costs, ceiling) for table in (machine.write, machine.state, machine.move)
    )
    tape.order[:, head], tape.exponent[:, head] = written
    return following, _moved(tape, move, ceiling)


def _mixture(joint: Orders, table: np.ndarray, costs: np.ndarray, ceiling: Any) -> Orders:
    # the sum over (q, a) of h(q, a) code(q, a; b) becomes a minimum of sums
    order = joint.order[:, :, None] + costs[table][None]
    best = order.argmin(1)
    rows, columns = np.arange(len(best))[:, None], np.arange(table.shape[1])[None, :]
    exponent = joint.exponent[rows, best].copy()
    coordinate = table[best, columns]
    row, column = np.nonzero(coordinate < len(costs) - 1)
    exponent[row, column, coordinate[row, column]] += 1
    return Orders(np.minimum(order[rows, best, columns], ceiling), np.minimum(exponent, DEGREE_LIMIT))


def _moved(tape: Orders, move: Orders, ceiling: Any) -> Orders:
    # cells entering at the edge are out of reach of the head, so any value does: the edge cell is repeated
    cells = tape.order.shape[1]
    sources = [np.clip(np.arange(cells) + shift, 0, cells - 1) for shift in (-1, 0, 1)]
    order = np.stack([tape.order[:, source] + move.order[:, m, None, None] for m, source in enumerate(sources)])
    best = order.argmin(0)
    row, cell, symbol = np.indices(best.shape)
    exponent = tape.exponent[row, np.stack(sources)[best, cell], symbol] + move.exponent[row, best]
    return Orders(np.minimum(order.min(0), ceiling), np.minimum(exponent, DEGREE_LIMIT))


def _certain(index: np.ndarray, width: int, dtype: np.dtype, ceiling: Any, dimension: int) -> Orders:
    order = np.full((*index.shape, width), ceiling, dtype)
    order[np.arange(width) == index[..., None]] = 0
    return Orders(order, np.zeros((*order.shape, dimension), np.int64))


def _sentence(program: MachineTables, rule: int, part: int, entry: int, right: int) -> str:
    state, symbol = divmod(rule, len(program.symbols))
    verb = ("writing", "entering", "")[part]
    words = (program.symbols, program.states, ("moving left", "staying", "moving right"))[part]
    mutation = f"{verb} {words[entry]} instead of {words[right]}".strip()
    return f"{mutation} in state {program.states[state]} reading {program.symbols[symbol]}"
