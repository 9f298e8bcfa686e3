"""Turing machines as plain tables, and the text they are written in."""

from typing import NamedTuple

#: The moves of the head, in the order every table of the library uses: left, stay, right.
MOVES = ("L", "S", "R")
BLANK = "_"


class Program(NamedTuple):
    """A deterministic Turing machine: one complete rule for every state and symbol.

    Each table is indexed ``[state][symbol]`` and holds plain integers, so a program is hashable and can be read by
    any part of the library without importing this one. State 0 starts; symbol 0 is the blank.

    Attributes:
      states: Names of the states, the starting one first.
      symbols: The alphabet, one character each, the blank ``"_"`` first.
      write: Index of the symbol written under the head.
      next_state: Index of the state entered.
      move: Index into ``("L", "S", "R")``.
      given: Whether the text stated the rule; a missing rule halts in place (same state, same symbol, stay).

    >>> parse("rej A -> acc A S").states
    ('rej', 'acc')
    """

    states: tuple[str, ...]
    symbols: tuple[str, ...]
    write: tuple[tuple[int, ...], ...]
    next_state: tuple[tuple[int, ...], ...]
    move: tuple[tuple[int, ...], ...]
    given: tuple[tuple[bool, ...], ...]


def check_program(program: object) -> None:
    """Refuse what is no program, or one whose tables, made by hand, point outside of themselves.

    Raises:
      ValueError: naming what was got, or the table.

    >>> check_program("rej A -> acc A S")
    Traceback (most recent call last):
      ...
    ValueError: program: got 'rej A -> acc A S', a str; make one with slt_jax.programs.parse
    """
    if not isinstance(program, Program):
        raise ValueError(f"program: got {program!r}, a {type(program).__name__}; make one with slt_jax.programs.parse")
    states, symbols = len(program.states), len(program.symbols)
    for name, width in (("write", symbols), ("next_state", states), ("move", len(MOVES))):
        table = [tuple(row) for row in getattr(program, name)]
        entries = {entry for row in table for entry in row}
        if [len(row) for row in table] != [symbols] * states or not entries <= {*range(width)}:
            raise ValueError(
                f"program: table {name!r} must be {states} rows of {symbols} whole numbers from 0 to {width - 1}, got "
                f"{table}; write the rules as text for slt_jax.programs.parse"
            )


class _Rule(NamedTuple):
    state: str
    symbol: str
    next_state: str
    write: str
    move: str


def parse(text: str) -> Program:
    """Read a program from its text, one rule a line: ``state symbol -> state symbol move``.

    ``move`` is ``L``, ``S`` or ``R``; ``_`` is the blank; ``#`` starts a comment. The first rule's state starts. The
    states are all those named, in order of appearance; the alphabet is the blank and then every symbol named, in
    order of appearance. A pair of state and symbol without a rule halts in place: the machine keeps its state,
    rewrites the symbol it reads and stays, for ever.

    Args:
      text: The rules.

    Returns:
      The complete tables.

    Raises:
      ValueError: if ``text`` is no string, a line is not a rule, a symbol is longer than one character, a move is
        unknown, two rules answer the same state and symbol, or there is no rule at all.

    When not to believe it: a misspelt state is a new state, so look at ``.states``.

    Source: the machine model is the one-tape machine of Clift, Murfet and Wallbridge (2021), arXiv 2103.16080; the
    text format is this library's.

    >>> program = parse('''
    ... rej B -> rej B R    # look further
    ... rej A -> acc A S    # found one
    ... ''')
    >>> program.symbols
    ('_', 'B', 'A')
    >>> program.given[1]
    (False, False, False)
    """
    if not isinstance(text, str):
        raise ValueError(f"text: got {text!r}; write the rules as one string, one a line, as in 'rej A -> acc A S'")
    rules = [_rule(number, line) for number, line in enumerate(text.splitlines(), 1) if line.split("#")[0].strip()]
    if not rules:
        raise ValueError("text: no rule found; write one a line, as in 'rej A -> acc A S'")
    states = tuple(dict.fromkeys(name for rule in rules for name in (rule.state, rule.next_state)))
    symbols = tuple(dict.fromkeys((BLANK, *(s for rule in rules for s in (rule.symbol, rule.write)))))
    table: dict[tuple[str, str], _Rule] = {}
    for rule in rules:
        if (rule.state, rule.symbol) in table:
            raise ValueError(f"text: two rules for state {rule.state!r} reading {rule.symbol!r}; keep one")
        table[rule.state, rule.symbol] = rule
    complete = [[table.get((q, a), _Rule(q, a, q, a, "S")) for a in symbols] for q in states]
    return Program(
        states=states,
        symbols=symbols,
        write=tuple(tuple(symbols.index(rule.write) for rule in row) for row in complete),
        next_state=tuple(tuple(states.index(rule.next_state) for rule in row) for row in complete),
        move=tuple(tuple(MOVES.index(rule.move) for rule in row) for row in complete),
        given=tuple(tuple((q, a) in table for a in symbols) for q in states),
    )


def _rule(number: int, line: str) -> _Rule:
    words = line.split("#")[0].split()
    if len(words) != 6 or words[2] != "->":
        raise ValueError(f"text, line {number}: got {line.strip()!r}; write 'state symbol -> state symbol move'")
    state, symbol, _, next_state, write, move = words
    for name in (symbol, write):
        if len(name) != 1:
            raise ValueError(f"text, line {number}: symbol {name!r} is not one character; rename it")
    if move not in MOVES:
        raise ValueError(f"text, line {number}: got move {move!r}; use one of L, S, R")
    return _Rule(state, symbol, next_state, write, move)


def render(program: Program) -> str:
    """Write a program as text that ``parse`` reads back to the same tables.

    Every rule is written, the halting ones too, so that nothing is left to a convention.

    Args:
      program: The tables.

    Returns:
      One rule a line, rules of the starting state first. The alphabet may come back in another order.

    Raises:
      ValueError: if it is no program.

    When not to believe it: never for behaviour; ``given`` reads all true afterwards.

    Source: this library's text format, see ``parse``.

    >>> print(render(parse("rej A -> acc A S")))
    rej _ -> rej _ S
    rej A -> acc A S
    acc _ -> acc _ S
    acc A -> acc A S
    """
    check_program(program)
    lines = []
    for q, state in enumerate(program.states):
        for a, symbol in enumerate(program.symbols):
            target, written = program.states[program.next_state[q][a]], program.symbols[program.write[q][a]]
            lines.append(f"{state} {symbol} -> {target} {written} {MOVES[program.move[q][a]]}")
    return "\n".join(lines)


def dimension(program: Program) -> int:
    """Count the free coordinates of the space of codes a program lives in.

    ``d = |Q| |Σ| ((|Σ| - 1) + (|Q| - 1) + 2)``: for every state and symbol a distribution over symbols to write, one
    over next states and one over the three moves.

    Args:
      program: The tables.

    Returns:
      The dimension ``d``.

    Raises:
      ValueError: if it is no program.

    When not to believe it: as a measure of complexity; a code's λ can be far below ``d`` or above ``d/2``.

    Source: Clift, Murfet and Wallbridge (2021), arXiv 2103.16080.

    >>> dimension(parse('''
    ... rej B -> rej B R
    ... rej A -> acc A S'''))
    30
    """
    check_program(program)
    states, symbols = len(program.states), len(program.symbols)
    return states * symbols * ((symbols - 1) + (states - 1) + (len(MOVES) - 1))
