"""Codes found from examples: chains that begin at random codes and are cooled."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from slt_jax.posterior import LocalPosterior, full_batch
from slt_jax.programs import (
    Code,
    Program,
    code_from_logits,
    logits_of,
    nearest_program,
    posterior_at,
    run,
    synthesis_problem,
    uniform_codes,
)
from slt_jax.programs.turing import surprise
from slt_jax.samplers import hmc
from slt_jax.samplers.base import MetropolisState
from slt_jax.sampling import check_schedule
from slt_jax.tree import check_key
from slt_jax.types import Array, Key, PyTree, Scalar

_STEP, _LEAPFROGS, _JITTER = 0.4, 6, 0.3


class Search(NamedTuple):
    """What a search found. One entry a chain.

    Attributes:
      programs: What each chain's last code rounds to.
      solves: Whether that program ends in the states asked for, on every input, ``(chain,)``.
      losses: Mean loss of the last code itself, nats, ``(chain,)``.
      course: Mean loss over all chains after each sweep, nats, ``(sweep,)``.
      nbetas: ``nβ`` of each sweep, ``(sweep,)``.
    """

    programs: tuple[Program, ...]
    solves: np.ndarray
    losses: np.ndarray
    course: np.ndarray
    nbetas: np.ndarray

    @property
    def solutions(self) -> tuple[Program, ...]:
        """The programs that solve the task, each once, in the order of their chains."""
        found = [program for program, solved in zip(self.programs, self.solves, strict=True) if solved]
        return tuple(dict.fromkeys(found))


def search(
    key: Key,
    states: Sequence[str],
    symbols: Sequence[str],
    outputs: Mapping[str, str],
    steps: int,
    *,
    chains: int = 64,
    sweeps: int = 60,
    hottest: float = 3.0,
    coldest: float = 300.0,
) -> Search:
    """Look for programs that do what was seen, by annealing the posterior over codes from random ones.

    Every chain begins at a code drawn from the prior and makes one Hamiltonian trajectory at each temperature, from
    the hottest to the coldest in equal ratios; what it ends at is rounded and run.

    Args:
      key: A typed key.
      states, symbols, outputs, steps: As for ``synthesis_problem``.
      chains: Codes at a time, vmapped.
      sweeps: Trajectories of each, of six gradients.
      hottest, coldest: ``nβ`` of the first and the last sweep, for the mean over inputs.

    Returns:
      The programs and which of them solve the task: checked by running them, not by their loss.

    Raises:
      ValueError: as ``synthesis_problem``; temperatures that are not positive and increasing.

    Not to be believed as a sample of the posterior: annealing this fast finds what is wide and near.

    Source: annealing: Kirkpatrick, Gelatt & Vecchi 1983, doi:10.1126/science.220.4598.671; the space of codes: Clift,
    Murfet and Wallbridge 2021, arXiv:2103.16080.

    >>> found = search(jax.random.key(0), ["a", "b"], "_A", {"A": "b"}, 1, chains=8, sweeps=20)
    >>> bool(found.solves.any()), found.solutions[0].next_state[0][1]
    (True, 1)
    """
    check_key(key)
    check_schedule(draws=sweeps, chains=chains, burnin=0, thin=1)
    nbetas = check_cooling(hottest, coldest, sweeps)
    problem = synthesis_problem(states, symbols, outputs, steps, hottest)
    posterior = posterior_at(problem, hottest)
    start_key, move_key = jax.random.split(key)
    state, course = _cooled(start_key, move_key, posterior, problem.data, jnp.asarray(nbetas, jnp.float32), chains)
    codes = jax.tree.map(np.asarray, jax.vmap(code_from_logits)(state.position))
    programs = tuple(
        nearest_program(Code(*(table[chain] for table in codes)), states, symbols) for chain in range(chains)
    )
    losses = jax.vmap(lambda z: jnp.mean(surprise(code_from_logits(z), problem.data)))(state.position)
    return Search(
        programs=programs,
        solves=np.array([solves(program, outputs, steps) for program in programs]),
        losses=np.asarray(losses),
        course=np.asarray(course),
        nbetas=nbetas,
    )


def solves(program: Program, outputs: Mapping[str, str], steps: int) -> bool:
    """Whether the program ends in the state asked for, on every input.

    >>> from slt_jax.programs import parity
    >>> solves(parity(), {"A": "odd"}, 3), solves(parity(), {"A": "odd", "B": "odd"}, 3)
    (True, False)
    """
    return all(run(program, word, steps).state == state for word, state in outputs.items())


def check_cooling(hottest: float, coldest: float, sweeps: int) -> np.ndarray:
    """The temperatures of all sweeps, in equal ratios, or a ``ValueError``.

    >>> check_cooling(1.0, 100.0, 3).tolist()
    [1.0, 10.0, 100.0]
    """
    for name, value in (("hottest", hottest), ("coldest", coldest)):
        if not isinstance(value, float | int | np.number) or not 0 < value < np.inf:
            raise ValueError(f"{name}: got {value!r}; it must be an nβ, positive and finite.")
    if coldest < hottest:
        raise ValueError(f"coldest: got nβ = {coldest}, hotter than the first, {hottest}; it must not fall.")
    return np.geomspace(hottest, coldest, sweeps)


def random_start(key: Key, posterior: LocalPosterior, data: PyTree) -> MetropolisState:
    """A chain at a code drawn from the uniform prior."""
    states, symbols = posterior.center["move"].shape[:2]
    code = jax.tree.map(lambda leaf: leaf[0], uniform_codes(key, states, symbols, 1))
    return hmc(_STEP).init(key, posterior, data)._replace(position=logits_of(code))


def sweep(key: Key, state: MetropolisState, posterior: LocalPosterior, data: PyTree, nbeta: Scalar) -> MetropolisState:
    """One trajectory at a temperature, the prior's share of the loss included."""
    function: Any = posterior.loss_fn
    tempered = posterior._replace(nbeta=nbeta, loss_fn=Partial(function.func, nbeta, *function.args[1:]))
    # what was evaluated at another temperature holds another share of the prior
    stale = state._replace(known=jnp.zeros((), bool))
    sampler = hmc(_STEP, leapfrogs=_LEAPFROGS, jitter=_JITTER)
    return sampler.step(key, stale, tempered, full_batch(posterior, data))[0]


@partial(jax.jit, static_argnums=(5,))
def _cooled(
    start_key: Key, move_key: Key, posterior: LocalPosterior, data: PyTree, nbetas: Array, chains: int
) -> tuple[MetropolisState, Array]:
    state = jax.vmap(random_start, (0, None, None))(jax.random.split(start_key, chains), posterior, data)

    def advance(state: MetropolisState, at: tuple[Key, Array]) -> tuple[MetropolisState, Array]:
        key, nbeta = at
        state = jax.vmap(sweep, (0, 0, None, None, None))(jax.random.split(key, chains), state, posterior, data, nbeta)
        losses = jax.vmap(lambda z: jnp.mean(surprise(code_from_logits(z), data)))(state.position)
        return state, jnp.mean(losses)

    return jax.lax.scan(advance, state, (jax.random.split(move_key, len(nbetas)), nbetas))
