"""What happens in each stage of a run, as data: temperatures, frictions, and the steps that are known."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from slt_jax.types import Array, Scalar

#: Share of the velocity that is lost in a step while the chains warm up: little, for momentum to cross flat directions.
BURNIN_FRICTION = 0.01
#: The same while draws are made by so many chains: more, for the energy of the stiff modes to be forgotten sooner. More
#: chains average it as well with less, in inverse proportion, and flat directions want as little as there may be.
DRAW_FRICTION, DRAW_CHAINS = 0.03, 4
#: Friction of a block that goes on, in units of that before, where there are so many chains or more: what has not
#: relaxed by then is slow. Fewer chains have more directions, in which those of little friction run into curvature.
_GOING_ON, _MANY = 0.4, 16
#: The energy forgets its start in ``1 / friction`` steps: a short burn-in needs a friction of this over its length.
#: Where no chain is annealed, only half of the energy is lacking at first, and 1 % at the end.
_FORGETTING, _FORGETTING_COLD = 20.0, 4.0
#: ``nβ`` of the annealed chains as a share of its final value: at first, and then once on the way.
HOT, WARM = 0.1, 0.3
#: Share of the burn-in that the annealed chains spend at a higher temperature.
_ANNEALED = 0.6


class Plan(NamedTuple):
    """What happens in each stage: numbers only, so that all plans of as many stages share one compilation.

    Attributes:
      share: ``nβ`` as a share of its final value, shape ``(stage, group)``.
      step_size: The step, shape ``(stage, group)``; NaN where it is to be found from what the chains meet.
      friction: Share of the velocity lost in a step, shape ``(stage,)``; of no effect on minibatches.
      heat: What minibatches add to λ̂ for an ε of 1, shape ``(stage, group)``: NaN where the step follows from what is
        felt; in the plan that a run returns, what was felt where each stage began.
      known: Whether the step is that of the stage before, shape ``(stage,)``.
      settled: Whether the draws count, and nothing is done to the chains any more, shape ``(stage,)``.
      fraction: Steps in units of those of the rule, shape ``()``.
    """

    share: Array
    step_size: Array
    friction: Array
    heat: Array
    known: Array
    settled: Array
    fraction: Scalar


def groups_of(chains: int) -> int:
    """Two groups, one from below and one from above, where the chains can be halved."""
    return 2 if chains % 2 == 0 else 1


def has_bracket(chains: int, burnin_stages: int) -> bool:
    """Whether half of the chains can be annealed."""
    return groups_of(chains) == 2 and burnin_stages > 1


def plan(chains: int, burnin_stages: int, draw_stages: int, burnin: int, fraction: Scalar = 1.0) -> Plan:
    """Burn-in, then draws: the first group cold from the start, the second annealed from a tenth of ``nβ``."""
    stages, groups = burnin_stages + draw_stages, groups_of(chains)
    share = np.ones((stages, groups))
    if bracket := has_bracket(chains, burnin_stages):
        annealed = max(1, int(_ANNEALED * burnin_stages))
        hot = -(-2 * annealed // 3)
        share[:hot, 1], share[hot:annealed, 1] = HOT, WARM
    least = (_FORGETTING if bracket else _FORGETTING_COLD) / max(burnin, 1)
    # a change of friction is one more start to forget, for which a short run has no time
    warming = (np.arange(stages) < burnin_stages) | (not bracket and BURNIN_FRICTION < least < 1)
    drawing = DRAW_FRICTION * min(1.0, DRAW_CHAINS / chains)
    # arrays of the host: what is moved is not compiled
    unknown = jnp.asarray(np.full((stages, groups), np.nan, np.float32))
    settled = jnp.asarray(np.arange(stages) >= max(burnin_stages, 1))
    friction = np.where(warming, BURNIN_FRICTION, drawing)
    return Plan(
        share=jnp.asarray(np.asarray(share, np.float32)),
        step_size=unknown,
        friction=jnp.asarray(np.asarray(np.clip(friction, min(least, 1.0), None), np.float32)),
        heat=unknown,
        # without a burn-in the curvature around the centre has to do
        known=settled,
        settled=settled,
        fraction=jnp.asarray(fraction, jnp.float32),
    )


@partial(jax.jit, static_argnums=1)
def going_on(used: Plan, chains: int, heat: Scalar | None = None) -> Plan:
    """The plan of a block that goes on where the first one stopped: draws only, at a step for where the chains are now.

    The step follows from the largest curvature met so far, there included, and on minibatches from the heat given.
    """
    last = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[-1:], leaf.shape), used._replace(fraction=used.friction))
    return last._replace(
        fraction=used.fraction,
        friction=(_GOING_ON if chains >= _MANY else 1.0) * last.friction,
        step_size=jnp.full_like(last.step_size, jnp.nan),
        heat=jnp.full_like(last.heat, jnp.nan if heat is None else heat),
        known=last.known.at[0].set(False),
    )
