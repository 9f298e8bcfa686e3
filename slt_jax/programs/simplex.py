"""Unconstrained coordinates of the space of codes, in which the uniform prior is kept honest by its Jacobian."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax.programs.program import MOVES, Program, check_program
from slt_jax.programs.turing import Code
from slt_jax.types import Array, Key, PyTree


def code_from_logits(logits: PyTree) -> Code:
    """Turn unconstrained numbers into distributions: ``p = softmax(H z)``, one ``z`` of ``k - 1`` numbers for each.

    The columns of ``H`` are orthonormal and each sums to 0, so that no entry of a distribution is singled out. Every
    point of the inside of the space of codes has exactly one ``z``; a program lies at infinity.

    Args:
      logits: Mapping of ``"write"``, ``"state"``, ``"move"`` to ``(Q, A, A-1)``, ``(Q, A, Q-1)``, ``(Q, A, 2)``.

    Returns:
      The distributions: positive, each summing to 1.

    When not to believe it: a probability below the smallest number of the precision is 0, as of ``|z|`` about 80.

    Source: isometric logratio coordinates: Egozcue et al. (2003), Mathematical Geology 35, 279-300.

    >>> code_from_logits(logits_like(1, 2)).write
    Array([[[0.5, 0.5],
            [0.5, 0.5]]], dtype=float32)
    """
    return Code(*(jax.nn.softmax(_spread(logits[name])) for name in Code._fields))


def logits_of(code: Code) -> dict[str, Array]:
    """The inverse of ``code_from_logits``: ``z = H^T log p``.

    Args:
      code: The distributions, all entries positive.

    Returns:
      Mapping as the argument of ``code_from_logits``; not finite where an entry is 0.

    When not to believe it: at a program itself, which has no finite coordinates.

    Source: as ``code_from_logits``.

    >>> codes = code_from_logits(jax.tree.map(lambda z: z + 0.5, logits_like(2, 2)))
    >>> bool(jnp.allclose(logits_of(codes)["move"], 0.5))
    True
    """
    return {
        name: jnp.log(table) @ jnp.asarray(_basis(table.shape[-1]), table.dtype)
        for name, table in zip(Code._fields, code, strict=True)
    }


def logits_like(states: int, symbols: int) -> dict[str, Array]:
    """Zeros of the shapes of the coordinates: the code all of whose distributions are uniform.

    Args:
      states, symbols: Q and A, each at least 1.

    Returns:
      Mapping as the argument of ``code_from_logits``.

    When not to believe it: always exact.

    Source: none needed.

    >>> {name: leaf.shape for name, leaf in logits_like(2, 3).items()}
    {'write': (2, 3, 2), 'state': (2, 3, 1), 'move': (2, 3, 2)}
    """
    widths = zip(Code._fields, (symbols, states, len(MOVES)), strict=True)
    return {name: jnp.zeros((states, symbols, width - 1)) for name, width in widths}


def log_uniform(logits: PyTree) -> Array:
    """The log density of the coordinates where codes are uniform: that of Dirichlet(1, …, 1) times the Jacobian.

    ``log (k-1)! + log √k + Σ_b log p_b`` for each distribution of k entries, the last two terms being
    ``log |∂(p_1 … p_{k-1}) / ∂z|``.

    Args:
      logits: As for ``code_from_logits``.

    Returns:
      Nats, shape ``()``; it integrates to 1 over all coordinates.

    When not to believe it: always exact up to rounding.

    Source: Egozcue et al. (2003), Mathematical Geology 35, 279-300.

    >>> bool(jnp.isclose(log_uniform(logits_like(1, 1)), jnp.log(2 * 3**0.5 / 27)))  # one distribution, of the move
    True
    """
    total = jnp.zeros(())
    for name in Code._fields:
        logs = jax.nn.log_softmax(_spread(logits[name]))
        width, count = logs.shape[-1], logs.shape[0] * logs.shape[1]
        total = total + jnp.sum(logs) + count * (math.lgamma(width) + 0.5 * math.log(width))
    return total


def uniform_codes(key: Key, states: int, symbols: int, count: int) -> Code:
    """Codes drawn at random from the uniform prior.

    Args:
      key: A typed key.
      states, symbols: Q and A.
      count: How many.

    Returns:
      Distributions with a leading axis of ``count``.

    When not to believe it: always exact.

    Source: none needed.

    >>> uniform_codes(jax.random.key(0), 2, 3, 5).state.shape
    (5, 2, 3, 2)
    """
    keys = jax.random.split(key, 3)
    widths = zip(keys, (symbols, states, len(MOVES)), strict=True)
    return Code(*(jax.random.dirichlet(k, jnp.ones(width), (count, states, symbols)) for k, width in widths))


def nearest_program(code: Code, states: Sequence[str], symbols: Sequence[str]) -> Program:
    """The program whose rules are the likeliest entries of a code.

    Args:
      code: The distributions, without leading axes.
      states, symbols: Names, the starting state and the blank first.

    Returns:
      The tables, every rule given.

    Raises:
      ValueError: if it is no code, or names and tables do not fit.

    When not to believe it: a code far from every program rounds to one all the same; compare what they compute.

    Source: none needed.

    >>> from slt_jax.programs.examples import parity
    >>> from slt_jax.programs.turing import code_of
    >>> program = parity()
    >>> nearest_program(code_of(program), program.states, program.symbols)[:5] == program[:5]
    True
    """
    if not isinstance(code, Code):
        raise ValueError(f"code: got a {type(code).__name__}; pass a slt_jax.programs.Code")
    if np.shape(code.write) != (len(states), len(symbols), len(symbols)):
        raise ValueError(
            f"code: writes a table of shape {np.shape(code.write)}, which are not {len(states)} states and "
            f"{len(symbols)} symbols; take one code at a time, with the names it was made for"
        )
    write, following, move = (
        tuple(tuple(int(entry) for entry in row) for row in np.argmax(np.asarray(table), axis=-1)) for table in code
    )
    given = ((True,) * len(symbols),) * len(states)
    program = Program(tuple(states), tuple(symbols), write, following, move, given)
    check_program(program)
    return program


def _spread(z: Array) -> Array:
    return z @ jnp.asarray(_basis(z.shape[-1] + 1), z.dtype).T


def _basis(width: int) -> np.ndarray:
    """Orthonormal columns that each sum to 0, ``(width, width - 1)``: those of Helmert."""
    basis = np.zeros((width, width - 1))
    for column in range(width - 1):
        basis[: column + 1, column] = 1.0
        basis[column + 1, column] = -(column + 1.0)
        basis[:, column] /= math.sqrt((column + 1) * (column + 2))
    return basis
