"""Long chains as oracles, in float64: exact conditional draws for linear networks, NUTS (blackjax) for one of tanh.

Nothing here is shared with the samplers that are judged: other algorithms, other code, another precision. What an
oracle reports is a conditional mean wherever one is known in closed form (Rao-Blackwell), its error comes from the
scatter of many independent chains.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

#: Share of every chain that is thrown away.
BURNIN = 0.2


class Average(NamedTuple):
    """``nβ E[L - L_ref]``, its standard error, and what it was made from.

    ``rhat`` is that of the energy, ``rhat_slow`` the worst over the log density and the size of the parameters: along
    the orbits of a symmetry chains can disagree about where they are and agree about the energy.
    """

    value: float
    std_error: float
    rhat: float
    rhat_slow: float
    chains: int
    draws: int
    seed: int


def split_rhat(draws: np.ndarray) -> float:
    """Split R-hat (Gelman et al. 2013) of ``(chain, draw)``."""
    half = draws.shape[1] // 2
    halves = np.concatenate([draws[:, :half], draws[:, half : 2 * half]])
    within = halves.var(axis=1, ddof=1).mean()
    between = half * halves.mean(axis=1).var(ddof=1)
    return float(np.sqrt(1 - 1 / half + between / (half * within))) if within > 0 else 1.0


def summarise(seed: int, values: np.ndarray, *slow: np.ndarray) -> Average:
    """The average of ``(chain, draw)``: one number a chain, so that no correlation in time can flatter the error."""
    means = values.mean(axis=1)
    error = float(means.std(ddof=1) / np.sqrt(len(means)))
    worst = max(split_rhat(draws) for draws in slow)
    return Average(float(means.mean()), error, split_rhat(values), worst, *values.shape, seed)


def linear_network(
    gram: np.ndarray,
    target: np.ndarray,
    layers: Sequence[np.ndarray],
    nbeta: float,
    gamma: float,
    reference: float,
    *,
    chains: int = 32,
    sweeps: int = 1000,
    seed: int = 0,
) -> Average:
    """``nβ E[L - L_ref]`` of a deep linear network by Gibbs sampling: each layer given the others is Gaussian.

    ``L(w) = ½ tr (P - T) S (P - T)ᵀ``, ``P = W_N ··· W_1``, S the second moments of the inputs, T the least-squares
    map. With ``P = left · W · right`` the precision of ``W`` is ``nβ leftᵀleft ⊗ right S rightᵀ + γ``, diagonal in two
    eigenbases: a draw is exact, has no step size, and leaves the flat neighbourhood of a rank-deficient minimum in one
    sweep. The conditional mean of the energy is averaged.
    """
    generator = np.random.default_rng(seed)
    target, gram = np.asarray(target, float), np.asarray(gram, float)
    center = [np.asarray(layer, float) for layer in layers]
    current = [np.broadcast_to(layer, (chains, *layer.shape)).copy() for layer in center]
    constant = 0.5 * np.sum((target @ gram) * target) - reference
    energies, sizes = np.empty((chains, sweeps)), np.empty((chains, sweeps))
    for sweep in range(sweeps):
        lefts = [np.broadcast_to(np.eye(target.shape[0]), (chains, *[target.shape[0]] * 2))]
        for layer in current[:0:-1]:
            lefts.append(lefts[-1] @ layer)
        right = np.broadcast_to(np.eye(target.shape[1]), (chains, *[target.shape[1]] * 2))
        found = []
        for index, left in enumerate(reversed(lefts)):
            moments = right @ gram @ _transposed(right)
            slope = _transposed(left) @ target @ gram @ _transposed(right)
            draw = partial(_draw_layer, generator, center[index], nbeta, gamma)
            current[index], energy = draw(_transposed(left) @ left, moments, slope)
            found.append(energy + nbeta * constant)
            right = current[index] @ right
        energies[:, sweep] = np.mean(found, axis=0)
        sizes[:, sweep] = sum(np.sum(layer**2, axis=(1, 2)) for layer in current)
    kept = slice(int(BURNIN * sweeps), None)
    return summarise(seed, energies[:, kept], sizes[:, kept])


def _draw_layer(
    generator: np.random.Generator,
    center: np.ndarray,
    nbeta: float,
    gamma: float,
    outer: np.ndarray,
    inner: np.ndarray,
    slope: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """A draw of ``½ nβ tr WᵀoW i - nβ tr Wᵀslope + γ/2 |W - W*|²`` and the mean of its first two terms."""
    outer_values, outer_basis = np.linalg.eigh(outer)
    inner_values, inner_basis = np.linalg.eigh(inner)
    stiffness = nbeta * outer_values.clip(0.0)[:, :, None] * inner_values.clip(0.0)[:, None, :]
    push = nbeta * _transposed(outer_basis) @ slope @ inner_basis
    mean = (push + gamma * _transposed(outer_basis) @ center @ inner_basis) / (stiffness + gamma)
    variance = 1 / (stiffness + gamma)
    energy = np.sum(0.5 * stiffness * (mean**2 + variance) - push * mean, axis=(1, 2))
    drawn = mean + np.sqrt(variance) * generator.normal(size=mean.shape)
    return outer_basis @ drawn @ _transposed(inner_basis), energy


def _transposed(matrices: np.ndarray) -> np.ndarray:
    return np.swapaxes(matrices, -1, -2)


def two_layers(
    activation: Callable,
    inputs: np.ndarray,
    targets: np.ndarray,
    params: tuple[np.ndarray, np.ndarray],
    nbeta: float,
    gamma: float,
    *,
    integrate: bool = True,
    **settings: int,
) -> Average:
    """``nβ E[L - L(w*)]`` of ``y = V act(W x)``, ``L = mean ½ |y - target|²``, by NUTS.

    With ``integrate`` the output layer, Gaussian given ``W``, is integrated out: NUTS moves ``W`` alone under
    ``det(nβ G + γ)^{-N/2} e^{...}``, G the second moments of the hidden units, and the conditional mean energy is
    averaged. Without, NUTS moves both layers and nothing is known in closed form: the check of the algebra.
    """
    with jax.enable_x64(True):
        arrays = [jnp.asarray(np.asarray(array, float)) for array in (inputs, targets, *params)]
        if integrate:
            look, start = partial(_integrated, activation, *arrays, nbeta, gamma), arrays[2]
        else:
            look, start = partial(_joint, activation, *arrays, nbeta, gamma), (arrays[2], arrays[3])
        return nuts(look, start, **settings)


def two_linear_layers(
    gram: np.ndarray,
    target: np.ndarray,
    layers: Sequence[np.ndarray],
    nbeta: float,
    gamma: float,
    reference: float,
    **settings: int,
) -> Average:
    """What ``linear_network`` averages, for two layers and by NUTS, which has nothing in common with it.

    As many inputs as there are features, with the same second moments, have the same posterior.
    """
    inputs = np.sqrt(len(gram)) * np.linalg.cholesky(gram).T
    layers = tuple(np.asarray(layer, float) for layer in layers)
    found = two_layers(_same, inputs, inputs @ target.T, layers, nbeta, gamma, **settings)
    apart = layers[1] @ layers[0] - target
    height = 0.5 * np.sum((apart @ gram) * apart) - reference
    return found._replace(value=float(found.value + nbeta * height))


def _same(hidden):
    return hidden


def _joint(activation, inputs, targets, inner, outer, nbeta, gamma, position):
    """Log density and energy of both layers."""

    def loss(first, second):
        return 0.5 * jnp.mean(jnp.sum((activation(inputs @ first.T) @ second.T - targets) ** 2, axis=1))

    energy = nbeta * (loss(*position) - loss(inner, outer))
    apart = jnp.sum((position[0] - inner) ** 2) + jnp.sum((position[1] - outer) ** 2)
    return -energy - 0.5 * gamma * apart, energy


def _integrated(activation, inputs, targets, inner, outer, nbeta, gamma, position):
    """Log density of the hidden layer with the output layer integrated out, and the energy expected given it."""
    count, outputs = targets.shape
    units = activation(inputs @ position.T)
    moments, slope = units.T @ units / count, units.T @ targets / count
    residual = activation(inputs @ inner.T) @ outer.T - targets
    constant = 0.5 * (jnp.sum(targets**2) - jnp.sum(residual**2)) / count
    pull = nbeta * slope + gamma * outer.T
    factor = jnp.linalg.cholesky(nbeta * moments + gamma * jnp.eye(len(moments)))
    mean = jax.scipy.linalg.cho_solve((factor, True), pull)
    half_trace = 0.5 * outputs * jnp.trace(jax.scipy.linalg.cho_solve((factor, True), nbeta * moments))
    energy = nbeta * (0.5 * jnp.sum(mean * (moments @ mean)) - jnp.sum(mean * slope) + constant) + half_trace
    log_density = 0.5 * jnp.sum(pull * mean) - outputs * jnp.sum(jnp.log(jnp.diag(factor)))
    return log_density - 0.5 * gamma * jnp.sum((position - inner) ** 2), energy


def nuts(look: Callable, start, *, chains: int = 12, warmup: int = 300, draws: int = 1000, seed: int = 0) -> Average:
    """The average of ``look(position)[1]`` under the log density ``look(position)[0]``: blackjax's NUTS, x64 on.

    Step size and diagonal mass are adapted in each chain by itself (window adaptation), from ``start``.
    """
    import blackjax

    def log_density(position):
        return look(position)[0]

    @jax.jit
    def run(key):
        warm_key, run_key = jax.random.split(key)
        adaptation = blackjax.window_adaptation(blackjax.nuts, log_density, target_acceptance_rate=0.85)
        adapt = jax.vmap(lambda key: adaptation.run(key, start, warmup)[0])
        states, settings = adapt(jax.random.split(warm_key, chains))
        kernel = blackjax.nuts.build_kernel()

        def step(states, key):
            move = jax.vmap(lambda key, state, own: kernel(key, state, log_density, **own)[0])
            states = move(jax.random.split(key, chains), states, settings)
            size = sum(jnp.sum(leaf**2, axis=tuple(range(1, leaf.ndim))) for leaf in jax.tree.leaves(states.position))
            return states, (jax.vmap(look)(states.position)[1], states.logdensity, size)

        return jax.lax.scan(step, states, jax.random.split(run_key, draws))[1]

    return summarise(seed, *(np.asarray(leaf).T for leaf in run(jax.random.key(seed))))
