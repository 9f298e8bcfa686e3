"""The plain machine: what a program does, step by step, on an unbounded tape."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from slt_jax.programs.program import MOVES, Program, check_program


class Run(NamedTuple):
    """Where a machine stands after some steps.

    Attributes:
      state: Name of the state: the output of the run.
      tape: What is written, from the first to the last cell that is not blank; ``""`` if all are.
      head: Cell the head is on; the input starts at cell 0.
      halted: Whether the next step, and so every later one, changes nothing.
    """

    state: str
    tape: str
    head: int
    halted: bool


def trace(program: Program, word: str, steps: int) -> Iterator[Run]:
    """Yield the machine before the first step and after each one.

    The head starts on the first symbol of ``word``, on an otherwise blank tape that is unbounded both ways: no step
    can leave it.

    Args:
      program: The tables.
      word: The input, a string over the program's alphabet; may be empty.
      steps: Number of steps taken.

    Yields:
      ``steps + 1`` snapshots.

    Raises:
      ValueError: if it is no program, a character of ``word`` is not in the alphabet, or ``steps`` is no whole number
        or negative.

    When not to believe it: exact for the deterministic machine only; for a distribution over codes use ``smooth_run``.

    Source: the one-tape machine of Clift, Murfet and Wallbridge (2021), arXiv 2103.16080.

    >>> from slt_jax.programs.program import parse
    >>> [run.state for run in trace(parse("even A -> odd A R"), "A", 2)]
    ['even', 'odd', 'odd']
    """
    check_program(program)
    if not hasattr(steps, "__index__") or isinstance(steps, bool) or steps < 0:
        raise ValueError(f"steps: got {steps!r}; give the number of steps to run, a whole number, 0 or more")
    tape = dict(enumerate(encode_word(program, word)))
    state = head = 0
    yield _snapshot(program, tape, state, head)
    for _ in range(steps):
        read = tape.get(head, 0)
        tape[head] = program.write[state][read]
        head += program.move[state][read] - 1
        state = program.next_state[state][read]
        yield _snapshot(program, tape, state, head)


def encode_word(program: Program, word: str) -> tuple[int, ...]:
    """Turn an input into symbol indices.

    Args:
      program: The tables.
      word: A string over the program's alphabet.

    Returns:
      One index a character.

    Raises:
      ValueError: if ``word`` is no string, or a character is not in the alphabet.

    When not to believe it: always exact.

    Source: none needed.

    >>> from slt_jax.programs.program import parse
    >>> encode_word(parse("even A -> odd A R"), "A_A")
    (1, 0, 1)
    """
    if not isinstance(word, str):
        raise ValueError(f"word: got {word!r}; an input is a string over the alphabet {program.symbols}")
    unknown = sorted(set(word) - set(program.symbols))
    if unknown:
        raise ValueError(f"word {word!r}: symbols {unknown} are not in the alphabet {program.symbols}")
    return tuple(program.symbols.index(symbol) for symbol in word)


def run(program: Program, word: str, steps: int) -> Run:
    """Run a program and keep the last snapshot; its ``state`` is the output.

    Args:
      program: The tables.
      word: The input, on an otherwise blank tape, the head on its first symbol.
      steps: Number of steps taken.

    Returns:
      The machine after exactly ``steps`` steps; ``halted`` says whether more would change anything.

    Raises:
      ValueError: if it is no program, a character of ``word`` is not in the alphabet, or ``steps`` is no whole number
        or negative.

    When not to believe it: with ``halted`` false the state is that of a machine still running.

    Source: the one-tape machine of Clift, Murfet and Wallbridge (2021), arXiv 2103.16080.

    >>> from slt_jax.programs.program import parse
    >>> run(parse("even A -> odd A R"), "A", 5)
    Run(state='odd', tape='A', head=1, halted=True)
    """
    *_, last = trace(program, word, steps)
    return last


def check(program: Program, outputs: Mapping[str, str], steps: int, must_halt: bool = True) -> None:
    """Raise unless the program computes the function claimed, within the steps given.

    Args:
      program: The tables.
      outputs: For each input the state the run must end in.
      steps: Number of steps taken.
      must_halt: Whether every run must also have halted.

    Raises:
      ValueError: naming the inputs on which the output is another one, or the machine is still running; if
        ``outputs`` is no mapping.

    When not to believe it: it speaks for the inputs listed and no others.

    Source: none needed.

    >>> from slt_jax.programs.program import parse
    >>> check(parse("even A -> odd A R"), {"A": "odd", "": "even"}, 3)
    """
    if not isinstance(outputs, Mapping):
        raise ValueError(f"outputs: got {outputs!r}; give a mapping from each input to the state it must end in")
    runs = {word: run(program, word, steps) for word in outputs}
    differing = [(word, runs[word].state, claim) for word, claim in outputs.items() if runs[word].state != claim]
    wrong = [f"{word!r} gives {state!r}, not {claim!r}" for word, state, claim in differing]
    if wrong:
        raise ValueError(f"outputs: after {steps} steps the program computes another function: {'; '.join(wrong[:5])}")
    running = [repr(word) for word, last in runs.items() if not last.halted]
    if must_halt and running:
        raise ValueError(f"steps: after {steps} the program has not halted on {', '.join(running[:5])}; give it more")


def _snapshot(program: Program, tape: Mapping[int, int], state: int, head: int) -> Run:
    written = [cell for cell, symbol in tape.items() if symbol]
    span = range(min(written), max(written) + 1) if written else ()
    word = "".join(program.symbols[tape.get(cell, 0)] for cell in span)
    read = tape.get(head, 0)
    rule = (program.next_state[state][read], program.write[state][read], program.move[state][read])
    return Run(program.states[state], word, head, rule == (state, read, MOVES.index("S")))
