"""Programs sorted: by what they compute, and by how they break."""

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from slt_jax.programs import Program, run
from slt_jax.truths.mutations import mutation_spectrum
from slt_jax.truths.turing import turing


class Family(NamedTuple):
    """Programs that compute one function and break in the same way.

    Attributes:
      function: The final state on each input, in the order of the inputs.
      learning_coefficient, multiplicity: λ and m, exact.
      spectrum: How many mutations break nothing alone, and how many by striking once, twice, …
      members: The programs.
    """

    function: tuple[str, ...]
    learning_coefficient: Fraction
    multiplicity: int
    spectrum: tuple[int, ...]
    members: tuple[Program, ...]

    def explain(self) -> str:
        """The family in a line."""
        often = [(times, count) for times, count in enumerate(self.spectrum[1:], 1) if count]
        alone = ", ".join(f"{count} {'at once' if times == 1 else f'striking {times} times'}" for times, count in often)
        count = len(self.members)
        return (
            f"{count} {'program' if count == 1 else 'programs'}, λ = {self.learning_coefficient}, "
            f"m = {self.multiplicity}; of {sum(self.spectrum)} mutations these break them alone: {alone or 'none'}"
        )


def families(programs: Sequence[Program], inputs: Sequence[str], steps: int) -> tuple[Family, ...]:
    """Sort programs by function, mutation spectrum, λ and m.

    Args:
      programs: Any programs over one alphabet.
      inputs, steps: As for ``truths.turing``.

    Returns:
      Families, those of one function together, the lowest λ first: the posterior prefers them in this order.

    Raises:
      ValueError: as ``truths.turing``; no programs.

    Not to be believed as equality of algorithms: two that break alike may still differ.

    Source: Clift, Murfet and Wallbridge 2021, arXiv:2103.16080.

    >>> from slt_jax.programs import detect_a, detect_a_running
    >>> found = families([detect_a_running(), detect_a()], ["A", "B", "AB", "BA"], 6)
    >>> [(str(family.learning_coefficient), len(family.members)) for family in found]
    [('44/5', 1), ('10', 1)]
    """
    if isinstance(programs, Program) or not isinstance(programs, Sequence) or not programs:
        raise ValueError(f"programs: got {programs!r}; give a list of at least one program")
    sorted_by: dict[tuple[tuple[str, ...], Fraction, int, tuple[int, ...]], list[Program]] = {}
    for program in programs:
        truth = turing(program, inputs, steps)
        spectrum = mutation_spectrum(program, inputs, steps).counts
        function = tuple(run(program, word, steps).state for word in inputs)
        kind = (function, truth.learning_coefficient, truth.multiplicity, spectrum)
        sorted_by.setdefault(kind, []).append(program)
    return tuple(Family(*kind, tuple(members)) for kind, members in sorted(sorted_by.items(), key=lambda item: item[0]))
