"""Programs of one function side by side: what they do, what breaks them, and what the posterior makes of it."""

import numpy as np

from slt_jax import plots
from slt_jax.programs import MOVES, Program, trace
from slt_jax.report.content import Content, Row
from slt_jax.report.markup import Html, element, figure, folded, joined, table, with_error
from slt_jax.studies.programs import OUTPUTS, REFERENCES, STATES, STEPS, SYMBOLS, WORDS
from slt_jax.truths import mutation_spectrum, turing

#: The word whose run is drawn: the machine has to look past its first letter.
_SHOWN = "BA"
_ARRAYS = {"nbetas", "values", "errors", "log_odds", "log_odds_errors"}


def competition(content: Content, probe: str) -> Html | None:
    """The three programs: their runs, their coefficients, their syndromes and their odds; ``None`` without arrays."""
    rows = [row for row in content.rows if row.probe == probe and row.measured and set(row.arrays) >= _ARRAYS]
    if not rows:
        return None
    return joined(
        _runs([(f"{name}, λ = {_exact(program)}", program) for name, program in REFERENCES.items()]),
        _coefficients(rows[-1]),
        _odds(rows[-1]),
        *(_syndromes(name, program) for name, program in REFERENCES.items()),
    )


def found(content: Content, probe: str) -> Html | None:
    """The programs that the checkpoints round to, run; ``None`` where no tables were kept."""
    rows = [row for row in content.rows if row.probe == probe and row.measured and "rules" in row.arrays]
    if not rows:
        return None
    return _runs([(f"step {row.step}: {_verdict(row)}", _program(row)) for row in rows[:6]])


def _program(row: Row) -> Program:
    write, following, move = (
        tuple(tuple(int(entry) for entry in line) for line in part) for part in row.arrays["rules"]
    )
    return Program(STATES, SYMBOLS, write, following, move, ((True,) * len(SYMBOLS),) * len(STATES))


def _verdict(row: Row) -> str:
    wrong = int(row.extra.get("wrong", np.nan))
    return "all right" if wrong == 0 else f"{wrong} of {len(OUTPUTS)} wrong"


def _exact(program: Program) -> str:
    return str(turing(program, WORDS, STEPS).learning_coefficient)


def _runs(programs: list[tuple[str, Program]]) -> Html:
    runs = {title: list(trace(program, _SHOWN, STEPS)) for title, program in programs}
    heads = [run.head for steps in runs.values() for run in steps]
    first, last = min(0, *heads), max(len(_SHOWN) - 1, *heads)
    drawn = [
        plots.MachineRun(
            title,
            first,
            [_on_cells(program, step, first, last) for step in range(STEPS + 1)],
            [run.head for run in runs[title]],
            [run.state for run in runs[title]],
            [run.halted for run in runs[title]],
        )
        for title, program in programs
    ]
    ends = "; ".join(f"{title}: ends in {runs[title][-1].state}, head on cell {runs[title][-1].head}" for title in runs)
    caption = (
        f"What each machine does on the word {_SHOWN}, time downwards: the cell under the head has the colour of the "
        f"state, and the state after {STEPS} steps is the answer."
    )
    return figure(plots.machine_runs(drawn), f"Runs on {_SHOWN}. {ends}.", caption)


def _on_cells(program: Program, step: int, first: int, last: int) -> str:
    """The tape between two cells after so many steps: what a snapshot shows, placed."""
    tape = dict(enumerate(_SHOWN))
    state = head = 0
    for _ in range(step):
        read = program.symbols.index(tape.get(head, SYMBOLS[0]))
        tape[head] = program.symbols[program.write[state][read]]
        head, state = head + program.move[state][read] - MOVES.index("S"), program.next_state[state][read]
    return "".join(tape.get(cell, SYMBOLS[0]) for cell in range(first, last + 1))


def _coefficients(row: Row) -> Html:
    lines = []
    for index, (name, program) in enumerate(REFERENCES.items()):
        truth = turing(program, WORDS, STEPS)
        counts = mutation_spectrum(program, WORDS, STEPS).counts
        value, error = row.arrays["values"][index, -1], row.arrays["errors"][index, -1]
        single = counts[1] if len(counts) > 1 else 0
        lines.append([name, truth.learning_coefficient, truth.multiplicity, with_error(value, error), single])
    header = [
        "program",
        "λ, exact",
        "m",
        f"λ_eff at nβ = {row.arrays['nbetas'][-1]:.0e}",
        "mutations that break it alone",
    ]
    return table(header, lines, text=(0,))


def _odds(row: Row) -> Html:
    names = list(REFERENCES)
    exact = [float(turing(program, WORDS, STEPS).learning_coefficient) for program in REFERENCES.values()]
    lines = [
        plots.OddsLine(
            name,
            row.arrays["nbetas"],
            row.arrays["log_odds"][index],
            row.arrays["log_odds_errors"][index],
            exact[-1] - exact[index],
        )
        for index, name in enumerate(names[:-1])
    ]
    told = "; ".join(f"{line.name} {line.log_odds[-1]:.1f} ± {line.errors[-1]:.1f}" for line in lines)
    caption = (
        f"Posterior odds of all codes that round to a program, against those that round to “{names[-1]}”, integrated "
        "from the prior on, where they are even. Bars are ± 2 standard errors. Dashed: the slope -Δλ of the exact "
        "learning coefficients, through the coldest point; at less data sets of mutations that nearly bind count too, "
        "and the order may be another."
    )
    alternative = f"Log odds by temperature; at nβ = {row.arrays['nbetas'][-1]:.0e}: {told} nats."
    return figure(plots.odds_lines(lines, names[-1]), alternative, caption)


def _syndromes(name: str, program: Program) -> Html:
    lines = turing(program, WORDS, STEPS).explain().splitlines()[1:]
    body = element("ul", *(element("li", line) for line in lines))
    return folded(f"What breaks the program “{name}”, with the weights that add up to λ", body)
