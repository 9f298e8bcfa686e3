"""The posterior over codes near one program, from the prior down to any temperature."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from slt_jax import tree
from slt_jax.diagnostics import rhat
from slt_jax.programs import Program, code_near, neighbourhood_problem, posterior_at
from slt_jax.programs.turing import surprise
from slt_jax.samplers import hmc
from slt_jax.sampling import check_schedule, sample
from slt_jax.tree import check_key
from slt_jax.types import Array, Key, PyTree

#: In these coordinates every width is about 1 whatever the temperature: one step serves all of them.
_STEP, _LEAPFROGS, _JITTER = 1.0, 8, 0.3
#: R-hat from which the chains of a rung count as apart.
_APART = 1.1


class LocalFlow(NamedTuple):
    """λ_eff of a program at each temperature. Arrays of numpy.

    Attributes:
      nbetas: ``nβ``, increasing, shape ``(rung,)``.
      value, std_error: ``λ_eff = nβ E[K]`` and its standard error from the scatter of chains, ``(rung,)``.
      velocity: ``dλ_eff / d log nβ``, that is λ_eff less the heat capacity, ``(rung,)``.
      energy: ``nβ K`` of every draw, ``(rung, chain, draw)``.
      mutations: The probability of every mutation at each draw, ``(rung, sample, d)``: over states, then symbols,
        within a rule over wrong symbols, wrong states, wrong moves. What ``substructure.contact_exponents`` takes.
      rhat: Of ``K`` between chains, ``(rung,)``.
      acceptance: Mean acceptance of the trajectories, ``(rung,)``.
    """

    nbetas: np.ndarray
    value: np.ndarray
    std_error: np.ndarray
    velocity: np.ndarray
    energy: np.ndarray
    mutations: np.ndarray
    rhat: np.ndarray
    acceptance: np.ndarray

    @property
    def ok(self) -> bool:
        """Whether the chains of every rung agree."""
        return bool((self.rhat < _APART).all())


def local_flow(
    key: Key,
    program: Program,
    inputs: Sequence[str],
    steps: int,
    *,
    nbetas: Sequence[float],
    draws: int = 300,
    burnin: int = 150,
    chains: int = 32,
) -> LocalFlow:
    """``λ_eff(nβ) = nβ E[K]`` of a program, over the codes that round to it, with a uniform prior on them.

    Hamiltonian Monte Carlo in the coordinates of ``neighbourhood_problem``, in which near the program small
    probabilities are exponentials: what is singular in the probabilities has slopes of order 1 in their logarithms,
    so that one step size serves at any temperature.

    Args:
      key: A typed key.
      program, inputs, steps: As for ``truths.turing``.
      nbetas: ``nβ`` for the mean over inputs, positive, increasing.
      draws, burnin, chains: Of each rung; trajectories of eight gradients.

    Returns:
      λ_eff and its slope on each rung, with the draws of all mutations.

    Raises:
      ValueError: as ``neighbourhood_problem``; ``nbetas`` that are not positive and increasing; fewer than two chains.

    Not to be believed where ``ok`` is False. λ_eff is λ only far down: ``m > 1`` adds ``-(m - 1)/log nβ``, and sets of
    mutations that nearly bind leave slowly. That of ``detect_a_overwriting``, eight steps, is 2.4 % low at 1e8 and at
    1e12 and right at 1e30. Lower than 1e30 give more burn-in: logarithms have ``log nβ`` nats to spread over.

    Source: Watanabe 2013, arXiv:1208.6338 (the mean energy); Duane, Kennedy, Pendleton & Roweth 1987,
    doi:10.1016/0370-2693(87)91197-X.

    >>> from slt_jax.programs import parse
    >>> flip = parse("a A -> b A S")  # one wrong next state breaks it: λ = 1
    >>> found = local_flow(jax.random.key(0), flip, ["A"], 1, nbetas=[1e6], draws=100, burnin=50)
    >>> bool(abs(found.value[0] - 1) < 4 * found.std_error[0])
    True
    """
    check_key(key)
    rungs = check_rungs(nbetas)
    check_schedule(draws=draws, chains=chains, burnin=burnin, thin=1)
    if chains < 2:
        raise ValueError(f"chains: got {chains}; the error comes from their scatter, which needs two.")
    rows = [
        _rung(one, program, inputs, steps, float(nbeta), draws, burnin, chains)
        for one, nbeta in zip(jax.random.split(key, len(rungs)), rungs, strict=True)
    ]
    energy, logs, apart, acceptance = (np.stack(column) for column in zip(*rows, strict=True))
    value = energy.mean(axis=(1, 2))
    return LocalFlow(
        nbetas=rungs,
        value=value,
        std_error=energy.mean(axis=2).std(axis=1, ddof=1) / np.sqrt(chains),
        velocity=value - energy.var(axis=(1, 2)),
        energy=energy,
        mutations=np.exp(logs),
        rhat=apart,
        acceptance=acceptance,
    )


def check_rungs(nbetas: Sequence[float]) -> np.ndarray:
    """The temperatures as an array, or a ``ValueError``.

    >>> check_rungs([1, 10]).tolist()
    [1.0, 10.0]
    """
    numbers = np.asarray(nbetas)
    if numbers.dtype.kind not in "iuf":
        raise ValueError(f"nbetas: got {nbetas!r}; pass a list of positive, finite temperatures.")
    rungs = numbers.astype(float)
    if rungs.ndim != 1 or rungs.size == 0 or not (np.isfinite(rungs).all() and (rungs > 0).all()):
        raise ValueError(f"nbetas: got {nbetas!r}; pass a list of positive, finite temperatures.")
    if (np.diff(rungs) <= 0).any():
        raise ValueError(f"nbetas: got {nbetas!r}; they must increase.")
    return rungs


def _rung(
    key: Key, program: Program, inputs: Sequence[str], steps: int, nbeta: float, draws: int, burnin: int, chains: int
) -> tuple[np.ndarray, ...]:
    problem = neighbourhood_problem(program, inputs, steps, nbeta)
    posterior = posterior_at(problem, nbeta)
    step = _STEP * max(tree.size(problem.params), 1) ** -0.25
    trace = sample(
        key,
        hmc(step, leapfrogs=_LEAPFROGS, jitter=_JITTER),
        posterior,
        problem.data,
        draws=draws,
        chains=chains,
        burnin=burnin,
        observe=Partial(_look, posterior.loss_fn.args[1], problem.data),
    )
    logs = np.asarray(trace.observables["logs"], np.float64)
    return (
        nbeta * np.asarray(trace.observables["loss"], np.float64),
        logs.reshape(-1, logs.shape[-1]),
        np.asarray(rhat(trace.observables["loss"])),
        np.asarray(trace.acceptance).mean(),
    )


def _look(rules: PyTree, data: PyTree, ratios: PyTree) -> PyTree:
    """The mean loss without the prior, nats, and the logarithms of the probabilities of all mutations, ``(d,)``."""
    logs = [_log_wrong(ratios[name]) for name in ("write", "state", "move")]
    states, symbols = ratios["move"].shape[:2]
    by_rule = jnp.concatenate(logs, axis=-1).reshape(states * symbols, -1)
    return {"loss": jnp.mean(surprise(code_near(rules, ratios), data)), "logs": by_rule.ravel()}


def _log_wrong(x: Array) -> Array:
    return jax.nn.log_sigmoid(x) - jnp.log1p(jax.nn.sigmoid(x).sum(-1, keepdims=True))
