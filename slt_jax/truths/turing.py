"""The exact learning coefficient of a program, and the mutations that decide it."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import partial
from typing import NamedTuple

import numpy as np

from slt_jax.truths.covering import solve_covering
from slt_jax.truths.minplus import (
    DEGREE_LIMIT,
    Machine,
    MachineTables,
    build_machine,
    certain_runs,
    check_tables,
    final_orders,
)

_SOURCE = (
    "loss and space of codes: Clift, Murfet and Wallbridge 2021, arXiv 2103.16080, and Murfet and Troiani 2025, "
    "arXiv 2504.08075; integral of a positive sum of monomials by its Newton polyhedron: Lin 2011, Algebraic Methods "
    "for Evaluating Integrals in Bayesian Statistics, PhD thesis, Berkeley; certified in exact arithmetic"
)


class Syndrome(NamedTuple):
    """A set of mutations that together make the program err, and its share in the learning coefficient.

    Attributes:
      mutations: The mutations in words, each with the power it enters the error probability with.
      weight: Its multiplier in the dual optimum, positive; the weights sum to λ.
    """

    mutations: tuple[tuple[str, int], ...]
    weight: Fraction


class ProgramTruth(NamedTuple):
    """An exact learning coefficient of a program, with its certificates: every attribute of ``Truth`` and more.

    Attributes:
      learning_coefficient: λ.
      multiplicity: m.
      source: The theorems.
      dimension: ``d``, of the space of codes.
      weights: Primal certificate: by mutation an order ``v > 0``; the rest are 0. They sum to λ.
      syndromes: Dual certificate: the binding sets of mutations, heaviest first.
      outputs: Final state by input.
      running: The inputs on which the machine had not halted after the steps given.
    """

    learning_coefficient: Fraction
    multiplicity: int
    source: str
    dimension: int
    weights: Mapping[str, Fraction]
    syndromes: tuple[Syndrome, ...]
    outputs: Mapping[str, str]
    running: tuple[str, ...]

    def explain(self) -> str:
        """Say in words what binds: which mutations break the program, alone or together.

        Returns:
          One sentence a line: λ and m first, then whether the machine halts, then the syndromes with their weights.

        When not to believe it: the syndromes are one optimal dual vertex; another vertex may name others.

        Source: linear programming duality.

        >>> from slt_jax.programs import parity
        >>> print(turing(parity(), ["A"], 1).explain().splitlines()[-1])
        1: entering even instead of odd in state even reading A breaks it alone
        """
        head = f"λ = {self.learning_coefficient}, m = {self.multiplicity}, of {self.dimension} dimensions"
        verdict = f"still running at the last step on {', '.join(map(repr, self.running))}: λ is that of the cut run"
        halts = verdict if self.running else "halts on every input"
        return "\n".join([head, halts, *(f"{s.weight}: {_words(s)}" for s in self.syndromes)])


def turing(
    program: MachineTables,
    inputs: Sequence[str],
    steps: int,
    *,
    outputs: Mapping[str, str] | None = None,
    must_halt: bool = False,
) -> ProgramTruth:
    """Compute λ and m of a Turing machine exactly, as a linear programme over the ways it can break.

    In error coordinates ``u ≥ 0`` at a program, ``K(u) = -mean_x log p(y(x) | x, u)`` is of the size of
    ``Σ_x P(wrong state | x, u)``, a sum of monomials ``u^α`` with positive coefficients. So
    ``λ = min { Σ v : v ≥ 0, ⟨α, v⟩ ≥ 1 for all α }`` and ``m = 1 +`` the dimension of the set of optimal ``v``. There
    is no factor ½: probabilities, unlike squares, are linear in the errors. The constraints are found by running the
    program in the (min, +) semiring, which gives the smallest ``⟨α, v⟩`` and an ``α`` that attains it.

    Args:
      program: The tables, as from ``programs.parse``.
      inputs: Strings over the alphabet; the head starts on the first symbol.
      steps: Number of steps run; the output is the state then. The tape is wide enough that no run can leave it.
      outputs: The final states claimed, by input; checked if given.
      must_halt: Whether to refuse a program still running after the steps given. If not, ``running`` names the inputs.

    Returns:
      λ and m (numbers without units) as exact fraction and integer, with primal and dual certificates, verified.

    Raises:
      ValueError: if ``program`` is none or its tables are broken, ``inputs`` is not a list of strings or empty,
        ``steps`` is below 1 or not whole, a symbol is unknown, the program computes another function than claimed, or
        does not halt though it must.
      ArithmeticError: if a certificate fails; no uncertified number is returned.

    When not to believe it: it is the λ of the smooth machine with independent marginals, uniform prior on codes, and
    exactly this number of steps. At finite ``nβ`` an estimate differs by about ``(m - 1)/log nβ`` and more.

    Source: Clift, Murfet and Wallbridge (2021), arXiv 2103.16080; Murfet and Troiani (2025), arXiv 2504.08075;
    λ and m of monomial ideals: Lin (2011), PhD thesis, Berkeley.

    >>> from slt_jax.programs import detect_a
    >>> turing(detect_a(), ["A", "B", "AB", "BA"], steps=6).learning_coefficient
    Fraction(44, 5)
    """
    machine, final, halted = prepare(program, inputs, steps)
    running = tuple(word for word, done in zip(inputs, halted, strict=True) if not done)
    if must_halt and running:
        raise ValueError(f"steps: after {steps} the program has not halted on {running[:5]}; give it more")
    names = {word: program.states[state] for word, state in zip(inputs, final, strict=True)}
    _check_claim(names, outputs)
    covering = solve_covering(len(machine.names), partial(_violations, machine, np.array(final)))
    syndromes = [_syndrome(machine, *pair) for pair in zip(covering.cuts, covering.multipliers, strict=True)]
    return ProgramTruth(
        learning_coefficient=covering.value,
        multiplicity=1 + covering.face_dimension,
        source=_SOURCE,
        dimension=len(machine.names),
        weights={name: v for name, v in zip(machine.names, covering.weights, strict=True) if v},
        syndromes=tuple(sorted(syndromes, key=lambda s: (-s.weight, len(s.mutations)))),
        outputs=names,
        running=running,
    )


def prepare(program: MachineTables, inputs: Sequence[str], steps: int) -> tuple[Machine, list[int], list[bool]]:
    check_tables(program)
    if not isinstance(inputs, Sequence) or isinstance(inputs, str) or len(inputs) == 0:
        raise ValueError(f"inputs: got {inputs!r}; give a list of at least one string")
    if not all(isinstance(word, str) for word in inputs):
        raise ValueError(f"inputs: got {inputs!r}; every input is a string over the program's alphabet")
    if not hasattr(steps, "__index__") or isinstance(steps, bool) or steps < 1:
        raise ValueError(f"steps: got {steps!r}; give the number of steps to run, a whole number, 1 or more")
    unknown = sorted({symbol for word in inputs for symbol in word} - set(program.symbols))
    if unknown:
        raise ValueError(f"inputs: symbols {unknown} are not in the alphabet {program.symbols}")
    words = [tuple(program.symbols.index(symbol) for symbol in word) for word in inputs]
    machine = build_machine(program, words, steps)
    return machine, *certain_runs(machine, program)


def _check_claim(found: Mapping[str, str], claimed: Mapping[str, str] | None) -> None:
    if claimed is None:
        return
    if not isinstance(claimed, Mapping):
        raise ValueError(f"outputs: got {claimed!r}; give a mapping from each input to the state it must end in")
    differing = [(word, state, claimed.get(word)) for word, state in found.items() if claimed.get(word) != state]
    wrong = [f"{word!r} gives {state!r}, not {claim!r}" for word, state, claim in differing]
    if wrong:
        raise ValueError(f"outputs: the program computes another function: {'; '.join(wrong[:5])}")


def _violations(machine: Machine, final: np.ndarray, weights: np.ndarray, threshold: float | int) -> np.ndarray:
    """Exponents of the error probabilities whose order is below the threshold, one for each input and wrong state."""
    # in floats a small price for every mutation prefers short syndromes among equals, which make deeper cuts
    price = 1e-6 if weights.dtype == float else 0
    found = final_orders(machine, weights + price, 2 * threshold)
    wrong = np.arange(found.order.shape[1]) != final[:, None]
    exponents = found.exponent[wrong & (found.order < (2 * threshold if price else threshold))]
    if exponents.size and exponents.max() >= DEGREE_LIMIT:
        raise ArithmeticError("an error probability has a monomial of degree beyond 2^60; run fewer steps")
    return exponents[exponents @ weights < threshold] if price else exponents


def _syndrome(machine: Machine, exponent: tuple[int, ...], weight: Fraction) -> Syndrome:
    return Syndrome(tuple((machine.names[i], power) for i, power in enumerate(exponent) if power), weight)


def _words(syndrome: Syndrome) -> str:
    parts = [name if power == 1 else f"{name} ({power} times)" for name, power in syndrome.mutations]
    if len(parts) == 1 and syndrome.mutations[0][1] == 1:
        return f"{parts[0]} breaks it alone"
    return f"{' and '.join(parts)} break it together" if len(parts) > 1 else f"{parts[0]} breaks it"
