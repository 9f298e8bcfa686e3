"""The posterior over codes: which codes explain what a program was seen to do, and how much room each leaves."""

import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from slt_jax.posterior import LocalPosterior, localise
from slt_jax.problem import Problem
from slt_jax.programs.program import BLANK, MOVES, Program
from slt_jax.programs.simplex import code_from_logits, log_uniform, logits_like
from slt_jax.programs.turing import Code, placed, surprise, tapes_of, turing_problem
from slt_jax.types import Array, PyTree, Scalar

#: Beyond it single precision has no numbers as small as the probabilities that matter.
_COLDEST = 1e35


def synthesis_problem(
    states: Sequence[str], symbols: Sequence[str], outputs: Mapping[str, str], steps: int, nbeta: float
) -> Problem:
    """Make examples of inputs and final states a problem over all codes: its tempered posterior is that of codes.

    ``loss(z; x) = -log p(y(x) | x, code(z)) - log π(z) / nβ``, with π the density of the coordinates where codes are
    uniform. So ``exp(-nβ L(z))`` is the tempered posterior with a uniform prior on every simplex: sample it at this
    very ``nβ``, with ``gamma=0``.

    Args:
      states: Names, the starting one first.
      symbols: The alphabet, the blank ``"_"`` first.
      outputs: For each input the state the run ended in.
      steps: Number of steps run.
      nbeta: ``nβ``, for the mean over examples.

    Returns:
      ``loss_fn(logits, batch)`` in nats, ``(B,)``; ``params`` the uniform code, zeros as of ``logits_like``; ``data``
      as of ``turing_problem``.

    Raises:
      ValueError: if names are missing, repeated or unknown, ``steps`` or ``nbeta`` is out of range, or nothing was
        observed.

    When not to believe it: at another ``nβ`` than the one given the prior is another. The centre is no minimum: what
    is read of its excess is a mean loss, no learning coefficient.

    Source: Clift, Murfet and Wallbridge (2021), arXiv 2103.16080.

    >>> problem = synthesis_problem(["rej", "acc"], "_AB", {"A": "acc", "B": "rej"}, steps=2, nbeta=10.0)
    >>> problem.loss_fn(problem.params, problem.data).shape
    (2,)
    """
    if not isinstance(outputs, Mapping) or not outputs:
        raise ValueError(f"outputs: got {outputs!r}; give a mapping from each input to the state the run ended in")
    _check_nbeta(nbeta)
    idle = idle_program(states, symbols)
    unknown = sorted(set(outputs.values()) - set(idle.states))
    if unknown:
        raise ValueError(f"outputs: ends in {unknown[0]!r}, which is none of the states {idle.states}")
    data = {
        "tape": tapes_of(idle, list(outputs), steps),
        "output": jnp.array([idle.states.index(state) for state in outputs.values()]),
    }
    return Problem(Partial(_posterior_loss, jnp.float32(nbeta)), logits_like(len(states), len(symbols)), data)


def neighbourhood_problem(program: Program, inputs: Sequence[str], steps: int, nbeta: float) -> Problem:
    """The posterior over codes near one program: those that round to it.

    A distribution rounds to its rule r where ``ρ_b = p_b / p_r ≤ 1`` for every wrong entry b. With ``ρ = σ(x)``, x
    unconstrained, ``p_b = ρ_b / (1 + Σ ρ)``, and the uniform prior has the log density
    ``k log p_r + Σ_b log σ(x_b) σ(-x_b)`` up to a constant. The prior mass of the neighbourhood is ``Π 1/k``, the same
    for every program of the space, and in all of it the loss is as large as its monomials at the program: its
    learning coefficient is that of the program, as of ``truths.turing``.

    Args:
      program: The tables.
      inputs: Strings over the alphabet; each is one example, weighted equally.
      steps: Number of steps run.
      nbeta: ``nβ``, for the mean over examples.

    Returns:
      ``loss_fn(x, batch)`` in nats, ``(B,)``, to be sampled at this very ``nβ`` with ``gamma=0``; ``params`` where
      every mutation has a probability of about ``1/nβ``; ``data`` as of ``turing_problem``.

    Raises:
      ValueError: as ``turing_problem``; ``nbeta`` out of range.

    When not to believe it: as ``synthesis_problem``.

    Source: Clift, Murfet and Wallbridge (2021), arXiv 2103.16080; the coordinates are this library's.

    >>> from slt_jax.programs.examples import detect_a
    >>> problem = neighbourhood_problem(detect_a(), ["A", "BA", "B"], steps=4, nbeta=1e6)
    >>> bool(code_near(problem.loss_fn.args[1], problem.params).state.max() > 0.999)
    True
    """
    _check_nbeta(nbeta)
    exact, errors, data = turing_problem(program, inputs, steps)
    rules = exact.args[0]  # type: ignore[attr-defined]
    start = jax.tree.map(lambda leaf: leaf - math.log(max(nbeta, 1.0)), errors)
    return Problem(Partial(_neighbourhood_loss, jnp.float32(nbeta), rules), start, data)


def code_near(rules: Code, ratios: PyTree) -> Code:
    """The code of the coordinates of ``neighbourhood_problem``.

    Args:
      rules: Integer tables ``(Q, A)`` each: the index of the rule in ``write``, ``state`` and ``move``.
      ratios: Mapping of ``"write"``, ``"state"``, ``"move"`` to ``(Q, A, A-1)``, ``(Q, A, Q-1)``, ``(Q, A, 2)``.

    Returns:
      The distributions, in which the rule is the likeliest entry.

    When not to believe it: always exact up to rounding; small probabilities keep their relative accuracy.

    Source: the chart is this library's.

    >>> rules = Code(jnp.array([[1, 0]]), jnp.array([[0, 0]]), jnp.array([[1, 1]]))
    >>> half = {"write": jnp.zeros((1, 2, 1)), "state": jnp.zeros((1, 2, 0)), "move": jnp.full((1, 2, 2), -99.0)}
    >>> code_near(rules, half).write[0, 0]
    Array([0.33333334, 0.6666667 ], dtype=float32)
    """
    return Code(*(_placed(rule, ratios[name]) for name, rule in zip(Code._fields, rules, strict=True)))


def log_uniform_near(ratios: PyTree) -> Array:
    """The log density of the coordinates of ``code_near`` where codes that round to the program are uniform.

    ``log (k-1)! + log k + k log p_r + Σ_b log σ(x_b) σ(-x_b)`` for each distribution of k entries: it integrates to 1.

    Args:
      ratios: As for ``code_near``.

    Returns:
      Nats, shape ``()``.

    When not to believe it: always exact up to rounding.

    Source: the chart is this library's.

    >>> moves = {"write": jnp.zeros((1, 1, 0)), "state": jnp.zeros((1, 1, 0)), "move": jnp.zeros((1, 1, 2))}
    >>> bool(jnp.isclose(log_uniform_near(moves), jnp.log(6 / 8 / 16)))
    True
    """
    total = jnp.zeros(())
    for name in Code._fields:
        x = ratios[name]
        width, count = x.shape[-1] + 1, x.shape[0] * x.shape[1]
        right = -width * jnp.log1p(jax.nn.sigmoid(x).sum(-1)).sum()
        total = total + right + jnp.sum(jax.nn.log_sigmoid(x) + jax.nn.log_sigmoid(-x))
        total = total + count * (math.lgamma(width) + math.log(width))
    return total


def posterior_at(problem: Problem, nbeta: Scalar) -> LocalPosterior:
    """The posterior of ``synthesis_problem`` or ``neighbourhood_problem`` at ``nβ``, prior and likelihood in one.

    Args:
      problem: As from these two.
      nbeta: ``nβ``; of the problem itself it may be another.

    Returns:
      What ``slt.sample`` takes, with ``gamma=0``.

    Raises:
      ValueError: as ``localise``; a problem of another kind.

    When not to believe it: never.

    Source: none needed.

    >>> problem = synthesis_problem(["rej", "acc"], "_AB", {"A": "acc"}, steps=2, nbeta=1.0)
    >>> float(posterior_at(problem, 50.0).nbeta)
    50.0
    """
    function = getattr(problem, "loss_fn", None)
    if not isinstance(function, Partial) or function.func not in (_posterior_loss, _neighbourhood_loss):
        raise ValueError("problem: its loss holds no prior; make it with synthesis_problem or neighbourhood_problem")
    loss_fn = Partial(function.func, jnp.float32(nbeta), *function.args[1:])
    return localise(loss_fn, problem.params, problem.data, nbeta=nbeta, gamma=0.0)


def idle_program(states: Sequence[str], symbols: Sequence[str]) -> Program:
    """The program that halts in place whatever it reads: names with no rules.

    Args:
      states, symbols: Names, the starting state and the blank ``"_"`` first.

    Returns:
      The tables, no rule given.

    Raises:
      ValueError: if names are no strings, there is none, one is repeated, a symbol is longer than one character, or the
        first is not ``_``.

    When not to believe it: always exact.

    Source: none needed.

    >>> idle_program(["rej", "acc"], "_AB").write
    ((0, 1, 2), (0, 1, 2))
    """
    if isinstance(states, str) or not isinstance(states, Sequence) or not all(isinstance(name, str) for name in states):
        raise ValueError(f"states: got {states!r}; give a list of names, the starting one first")
    if not isinstance(symbols, Sequence) or not all(isinstance(symbol, str) for symbol in symbols):
        raise ValueError(f"symbols: got {symbols!r}; give a string or a list of characters, the blank first")
    for name, values in (("states", states), ("symbols", symbols)):
        if len(values) == 0 or len(set(values)) < len(values):
            raise ValueError(f"{name}: got {values!r}; give at least one name, each once")
    if symbols[0] != BLANK or any(len(symbol) != 1 for symbol in symbols):
        raise ValueError(f"symbols: got {symbols!r}; give single characters, the blank {BLANK!r} first")
    same = tuple(range(len(symbols)))
    return Program(
        states=tuple(states),
        symbols=tuple(symbols),
        write=(same,) * len(states),
        next_state=tuple((q,) * len(symbols) for q in range(len(states))),
        move=((MOVES.index("S"),) * len(symbols),) * len(states),
        given=((False,) * len(symbols),) * len(states),
    )


def _check_nbeta(nbeta: Scalar) -> None:
    number = isinstance(nbeta, float | int) and not isinstance(nbeta, bool)
    if not number or not 0 < nbeta < _COLDEST:
        raise ValueError(f"nbeta: got {nbeta!r}; it must be a positive number below {_COLDEST:.0e}")


def _posterior_loss(nbeta: Array, logits: PyTree, batch: PyTree) -> Array:
    return surprise(code_from_logits(logits), batch) - log_uniform(logits) / nbeta


def _neighbourhood_loss(nbeta: Array, rules: Code, ratios: PyTree, batch: PyTree) -> Array:
    return surprise(code_near(rules, ratios), batch) - log_uniform_near(ratios) / nbeta


def _placed(rule: Array, x: Array) -> Array:
    ratio = jax.nn.sigmoid(x)
    right = 1 / (1 + ratio.sum(-1, keepdims=True))
    return placed(rule, right, ratio * right)
