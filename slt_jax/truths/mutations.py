"""How robust a program is: what each mutation does to it alone."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from slt_jax.truths.minplus import MachineTables, final_orders
from slt_jax.truths.turing import prepare

#: A mutation that would have to strike more often than this is counted as harmless alone.
_OFTEN = 12


class MutationSpectrum(NamedTuple):
    """What single mutations do to a program.

    Attributes:
      powers: By mutation, in words, the number of times it has to strike for the output to be wrong; those that break
        nothing alone, however often, are left out.
      dimension: Number of all mutations.
    """

    powers: Mapping[str, int]
    dimension: int

    @property
    def counts(self) -> tuple[int, ...]:
        """How many mutations break nothing alone, how many break it by striking once, twice, and so on.

        >>> from slt_jax.programs import parity
        >>> mutation_spectrum(parity(), ["A", "B"], 1).counts
        (28, 2)
        """
        often = Counter(self.powers.values())
        longest = max(often, default=0)
        return (self.dimension - len(self.powers), *(often[power] for power in range(1, longest + 1)))


def mutation_spectrum(program: MachineTables, inputs: Sequence[str], steps: int) -> MutationSpectrum:
    """The order at which each mutation alone makes a program err: ``K ~ u^p`` along its axis.

    Two programs whose spectra differ break in different ways, whatever they compute: it is invariant under names of
    states and symbols, and is what codes found by search are sorted by.

    Args:
      program, inputs, steps: As for ``turing``.

    Returns:
      The power of each mutation, exact up to 12; beyond it counts as breaking nothing alone.

    Raises:
      ValueError: as ``turing``.

    Not to be believed as a measure of how much room a program has: pairs of mutations decide too, and that is what the
    learning coefficient of ``turing`` weighs.

    Source: the monomials are those of Clift, Murfet and Wallbridge 2021, arXiv:2103.16080; their orders by the
    program itself run in the (min, +) semiring.

    >>> from slt_jax.programs import detect_a
    >>> spectrum = mutation_spectrum(detect_a(), ["A", "B", "AB", "BA"], 6)
    >>> spectrum.powers["entering acc instead of rej in state rej reading B"]
    1
    """
    machine, final, _ = prepare(program, inputs, steps)
    wrong = np.arange(len(program.states)) != np.array(final)[:, None]
    powers = {}
    for number, name in enumerate(machine.names):
        weights = np.full(len(machine.names), _OFTEN + 1)
        weights[number] = 1
        order = int(final_orders(machine, weights, _OFTEN + 1).order[wrong].min(initial=_OFTEN + 1))
        if order <= _OFTEN:
            powers[name] = order
    return MutationSpectrum(powers, len(machine.names))
