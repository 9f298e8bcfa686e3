"""The spectral density of the Hessian at given parameters, without ever writing the Hessian out."""

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from slt_jax import loss
from slt_jax import restriction as restrictions
from slt_jax.curvature.lanczos import ROUNDING, Quadrature, lanczos
from slt_jax.curvature.operators import Operator, dense, flat_dtype, hessian, product
from slt_jax.curvature.top import check_count, check_finite
from slt_jax.estimators.spectrum import HessianSpectrum
from slt_jax.restriction import Restriction
from slt_jax.types import Array, Key, LossFn, PyTree

PROBES = 8
STEPS = 64


def hessian_spectrum(
    key: Key,
    loss_fn: LossFn,
    params: PyTree,
    data: PyTree,
    *,
    restriction: Restriction | None = None,
    operator: Operator = hessian,
    probes: int = PROBES,
    steps: int = STEPS,
    chunk_size: int = loss.CENTER_CHUNK,
) -> HessianSpectrum:
    """The spectral density ``ρ(h) = (1/d) Σ_i δ(h - h_i)`` of the Hessian of the mean loss in the free directions.

    Stochastic Lanczos quadrature: ``ρ`` is the mean over random directions ``v`` of ``Σ_i ⟨v, q_i⟩² δ(h - h_i)``, and
    ``steps`` products with the Hessian give the Gauss quadrature of that measure, in the precision of the parameters
    with full re-orthogonalisation. Where ``probes * steps`` products give all of the matrix, ``d ≤ probes * steps``, it
    is diagonalised instead, and nothing is left to chance.

    Args:
      key: A typed key.
      loss_fn: Losses in nats: ``(B,)``, ``(B, T)`` or ``()``.
      params: Where to look, of any kind: it need not be a minimum.
      data: All examples.
      restriction: Free directions; default all.
      operator: The matrix: ``curvature.hessian``, ``curvature.gauss_newton(outputs, metric)`` (also the Fisher
        information), ``curvature.empirical_fisher``, or a function like them.
      probes: Random directions, at least two: errors fall with their square root. Where ``r`` directions are stiff, the
        relative error of their number is about ``√(2 / (r probes))``.
      steps: Products with the Hessian for each; curvatures about ``steps^-2`` of the largest are told from 0.
      chunk_size: Examples that are looked at at a time; a loss that is a mean sees all of them.

    Returns:
      The spectrum in nats per squared unit of ``z``: nodes and weights, shape ``(probe, step)``, with functions for the
      density, the number of stiff directions, and ``regular(nbeta, gamma)``, whose ``remainder(estimate)`` is what the
      Hessian cannot see of λ. Works inside jit. The memory is ``steps`` copies of the parameters.

    Raises:
      ValueError: before anything is compiled, where the loss breaks its contract, the restriction does not fit, or
        ``probes`` or ``steps`` is no integer in range; after the run, where the curvature is not finite.

    Not to be believed at a kink of a ReLU; below ``resolution``, in float32 about 1e-6 of the largest curvature: what
    lies there is not part of ``regular``; as a spectrum between its nodes, unless the ``width`` covers them.

    Source: Lin, Saad & Yang 2016, arXiv:1308.5467; Ghorbani, Krishnan & Xiao 2019, arXiv:1901.10159; Golub & Meurant
    2010, Matrices, Moments and Quadrature.

    >>> loss_fn = lambda w, x: 0.5 * jnp.sum(jnp.arange(4.0) * w**2) + x
    >>> spectrum = hessian_spectrum(jax.random.key(0), loss_fn, jnp.zeros(4), jnp.zeros(100))
    >>> float(spectrum.count_above(0.5).value), round(float(spectrum.regular(10.0, 10.0).value), 4)
    (3.0, 0.9583)
    """
    loss.check(loss_fn, params, data)
    restriction = restrictions.full() if restriction is None else restriction
    restrictions.check(restriction, params)
    for name, value in (("probes", probes), ("steps", steps), ("chunk_size", chunk_size)):
        check_count(name, value)
    size = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(restriction.origin, params)))
    if size > probes * steps and (probes < 2 or steps < 2):
        raise ValueError(
            f"probes and steps: got {probes} and {steps}; pass at least 2 of both for {size} free directions, as the "
            "errors come from comparing them."
        )
    function = loss_fn if isinstance(loss_fn, Partial) else Partial(loss_fn)
    operator = operator if isinstance(operator, Partial) else Partial(operator)
    spectrum = _measure(key, function, params, data, restriction, operator, probes, steps, chunk_size)
    check_finite(spectrum.nodes)
    return spectrum


def _spectrum(
    key: Key,
    loss_fn: LossFn,
    params: PyTree,
    data: PyTree,
    restriction: Restriction,
    operator: Operator,
    probes: int,
    steps: int,
    chunk: int,
) -> HessianSpectrum:
    dtype = flat_dtype(params, restriction)
    multiply, size = product(operator, loss_fn, params, data, restriction, chunk)
    if size <= probes * steps:
        return _diagonalised(dense(multiply, size, dtype))

    def look(probe_key: Key) -> Quadrature:
        return lanczos(multiply, jax.random.normal(probe_key, (size,), dtype), min(steps, size))

    # one after the other: each holds as many copies of the parameters as there are steps
    found = jax.lax.map(look, jax.random.split(key, probes))
    rule = (found.nodes, found.weights, found.coarse_nodes, found.coarse_weights)
    return HessianSpectrum(*rule, jnp.asarray(size), jnp.max(found.noise))


_measure = jax.jit(_spectrum, static_argnums=(6, 7, 8))


def _diagonalised(matrix: Array) -> HessianSpectrum:
    """All eigenvalues, of equal weight; rounding shows in how far the matrix is from symmetric."""
    size = len(matrix)
    nodes = jnp.linalg.eigvalsh(0.5 * (matrix + matrix.T))[None, :]
    weights = jnp.full_like(nodes, 1 / size)
    noise = jnp.linalg.norm(matrix - matrix.T) / jnp.sqrt(size)
    resolution = ROUNDING * jnp.finfo(matrix.dtype).eps * jnp.max(jnp.abs(nodes)) + noise
    return HessianSpectrum(nodes, weights, nodes, weights, jnp.asarray(size), resolution)
