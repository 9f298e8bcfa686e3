"""The staged pseudo-universal machine: a smooth machine that looks its rules up one after another on a tape."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax.programs.program import MOVES
from slt_jax.programs.turing import Code, moved
from slt_jax.types import Array


def staged_step(code: Code, state: Array, tape: Array, order: Array) -> tuple[Array, Array]:
    """Propagate uncertainty through one cycle of the staged pseudo-universal machine.

    The machine scans its description tape, on which the rules stand in an order; a rule whose state and symbol match
    is copied to the staging tape over what stands there, and what stands there after the scan is done. Rule ``i``
    matches with probability ``h_i``, its state's times its symbol's under the head, each match by itself. So the last
    match is rule ``i`` with probability ``μ_i = h_i Π_{j after i} (1 - h_j)``, and with ``Π (1 - h_j)`` there is none:
    then symbol and state stay what they are and the head stays. Written symbol, next state and move are the mixtures.

    Args:
      code: The distributions.
      state: ``(Q,)``, probabilities.
      tape: ``(cells, A)``, the head on the middle one.
      order: The rules in the order of the description tape, ``(rules,)``: ``q A + a`` for state q and symbol a.

    Returns:
      The next state and tape, of the same shapes.

    When not to believe it: as ``smooth_step``, from which it differs wherever state or symbol are uncertain: a rule
    farther left on the description tape is hidden by those behind it. ``truths.turing`` speaks of ``smooth_step``.

    Source: Clift, Murfet and Wallbridge (2021), arXiv 2103.16080, the staged pseudo-universal machine and its direct
    simulation.

    >>> from slt_jax.programs.examples import parity
    >>> from slt_jax.programs.turing import code_of, tapes_of
    >>> tape = tapes_of(parity(), ["A"], 1)[0]
    >>> staged_step(code_of(parity()), jnp.array([1.0, 0.0]), tape, jnp.arange(6))[0]
    Array([0., 1.], dtype=float32)
    """
    head = tape[tape.shape[0] // 2]
    match = jnp.einsum("q,a->qa", state, head).ravel()[order]
    missed = jnp.cumprod(jnp.append(1 - match, 1.0)[::-1])[::-1]
    last, none = match * missed[1:], missed[0]
    written, following, move = (
        jnp.einsum("i,ib->b", last, table.reshape(-1, table.shape[-1])[order]) for table in code
    )
    stay = jnp.zeros_like(move).at[MOVES.index("S")].set(none)
    return following + none * state, moved(tape, written + none * head, move + stay)


def staged_run(code: Code, tapes: Array, order: Sequence[int] | None = None) -> Array:
    """Run the staged machine on many tapes at once and return the distribution of its final state.

    Args:
      code: The distributions.
      tapes: ``(inputs, cells, A)``, as from ``tapes_of``: as many cycles as they were made for.
      order: The rules on the description tape, each ``q A + a``; default all, states first. A rule that is left out
        is never matched.

    Returns:
      ``(inputs, Q)``: probability of each final state. Differentiable in the code; ``jax.vmap`` over codes works.

    Raises:
      ValueError: an order that repeats a rule or names one that is not in the code.

    When not to believe it: see ``staged_step``.

    Source: Clift, Murfet and Wallbridge (2021), arXiv 2103.16080.

    >>> from slt_jax.programs.examples import parity
    >>> from slt_jax.programs.turing import code_of, tapes_of
    >>> staged_run(code_of(parity()), tapes_of(parity(), ["A", "BAA"], 4))
    Array([[0., 1.],
           [1., 0.]], dtype=float32)
    """
    rules = code.write.shape[0] * code.write.shape[1]
    chosen = np.arange(rules) if order is None else np.asarray(order)
    if chosen.ndim != 1 or chosen.dtype.kind not in "iu" or not set(chosen.tolist()) <= set(range(rules)):
        raise ValueError(f"order: got {order!r}; list rules by their numbers, q A + a, from 0 to {rules - 1}")
    if len(set(chosen.tolist())) < len(chosen):
        raise ValueError(f"order: got {order!r}, in which a rule stands twice; list each once")
    start = jnp.zeros_like(code.state[0, 0]).at[0].set(1.0)

    def one(tape: Array) -> Array:
        def body(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
            return staged_step(code, *carry, jnp.asarray(chosen)), None

        return jax.lax.scan(body, (start, tape.astype(start.dtype)), None, length=tape.shape[0] // 2)[0][0]

    return jax.vmap(one)(tapes)
