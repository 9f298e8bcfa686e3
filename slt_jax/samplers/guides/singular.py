"""The singular guide: a generalised-gamma base, affine couplings, and a last coupling that is the loss's own."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from slt_jax.posterior import Batch, LocalPosterior
from slt_jax.samplers.guides.base import Guide, potential, zeros
from slt_jax.samplers.guides.blocks import CANDIDATES, down, lowest, orders, up
from slt_jax.tree import Static
from slt_jax.types import Array, Key, PyTree

#: Draws by which an order of blocks is judged before the descent.
_LOOKS = 32
#: A coupling stretches by at most ``exp(2)`` at a time.
_MOST = 2.0


class Base(NamedTuple):
    """``ξ_j = ± √2 e^{w_j} G_j^{1/2k_j}``, ``G_j ~ Gamma((h_j + 1) / 2k_j)``: ``|ξ_j|^{h_j} exp(-|ξ_j / c_j|^{2k_j})``.

    Attributes:
      shape: ``log (h_j + 1) / (2 k_j)``, shape ``(d,)``.
      power: ``log k_j``, shape ``(d,)``.
      width: ``w_j``, shape ``(d,)``; at 0, with ``h = 0`` and ``k = 1``, the law is the standard normal one.
    """

    shape: Array
    power: Array
    width: Array


class Coupling(NamedTuple):
    """A network of one hidden layer that stretches and shifts half of the entries as the others say."""

    inner: Array
    bias: Array
    outer: Array


def singular(*, couplings: int = 4, hidden: int = 16, blocks: int = 3) -> Guide:
    """An affine-coupling flow over a generalised-gamma base, ``q(ξ_j) ∝ |ξ_j|^{h_j} exp(-nβ |ξ_j|^{2k_j})``.

    The base, h, k and a width of each entry free, is sent through ``couplings`` affine couplings,
    ``y_B = exp(s(y_A)) ξ_B + t(y_A)``, and then through one more that knows the loss: the entries of z are laid into
    ``blocks`` ordered blocks, and each is affine in its y as the loss around all blocks before it says,
    ``z_b = μ_b(z_<b) + L_b(z_<b)^{-T} y_b``, ``L_b L_bᵀ = nβ ∇²_b K(z_<b, 0) + γ``. That is the scale
    ``nβ^{-1/2}`` of the base, and a resolution of the singularity wherever the loss is quadratic in each block alone,
    as a network is in each of its layers: the blocks before open an arm, the next is squeezed onto its valley. Which
    entries are in which block is found from 256 orders drawn at random, by the bound that each begins with.

    Args:
      couplings: How many networks.
      hidden: Units of each.
      blocks: 1 leaves the Gaussian scale of the centre alone: the guide of the paper, its chart left to the networks.

    Returns:
      A guide of about ``4 couplings · hidden · d`` numbers. A draw costs ``blocks`` Hessians of ``d`` products each.

    Raises:
      ValueError: ``couplings``, ``hidden`` or ``blocks`` is not a whole number from 1 up (``couplings`` from 0).

    Not to be believed in more than some tens of directions, where Hessians are dear and 256 random orders are few; nor
    where the loss is not convex in each block around the others, so that ``L_b`` does not exist: such orders are not
    taken, and what is left may be the Laplace approximation. Beyond nβ of 1e6 it wants 64 bits.

    Source: Wei & Lau 2023, arXiv:2302.06035 (base and couplings; the last coupling is ours); Dinh, Sohl-Dickstein &
    Bengio 2017, arXiv:1605.08803 (affine couplings).

    >>> singular(blocks=1).init.args[0].value
    (4, 16, 1)
    """
    for name, value, least in (("couplings", couplings, 0), ("hidden", hidden, 1), ("blocks", blocks, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name}: got {value!r}; pass a whole number from {least} up.")
    sizes = Static((couplings, hidden, blocks))
    return Guide(Partial(_init, sizes), Partial(_draw, sizes), Partial(_log_density, sizes), Partial(_ratios, sizes))


def _init(sizes: Static, key: Key, posterior: LocalPosterior, batch: Batch) -> tuple[PyTree, Array]:
    couplings, hidden, blocks = sizes.value
    origin = zeros(posterior)
    net_key, order_key, look_key = jax.random.split(key, 3)
    base = Base(jnp.full_like(origin, jnp.log(0.5)), origin, origin)
    free = (base, [_network(k, origin, hidden) for k in jax.random.split(net_key, couplings)])
    if blocks == 1:
        return free, origin

    # the base is normal so far, and the networks do nothing: only what differs from order to order is computed
    def bound(order: Array, key: Key) -> Array:
        def one(key: Key) -> Array:
            y = jax.random.normal(key, origin.shape, origin.dtype)
            z, volume = down(order, blocks, y, posterior, batch)
            return potential(z, posterior, batch) - 0.5 * jnp.sum(y**2 + jnp.log(2 * jnp.pi)) - volume

        return jnp.mean(jax.vmap(one)(jax.random.split(key, _LOOKS)))

    return free, lowest(look_key, bound, orders(order_key, posterior, blocks, CANDIDATES))


def _network(key: Key, like: Array, hidden: int) -> Coupling:
    """A coupling that does nothing yet: its outer layer is 0."""
    inputs = 2 * like.size
    inner = jax.random.normal(key, (inputs, hidden), like.dtype) / max(inputs, 1) ** 0.5
    return Coupling(inner, jnp.zeros(hidden, like.dtype), jnp.zeros((hidden, inputs), like.dtype))


def _draw(
    sizes: Static, free: PyTree, order: Array, key: Key, posterior: LocalPosterior, batch: Batch
) -> tuple[Array, Array]:
    base, networks = free
    xi = _base_draw(key, base)
    density, y = _base_density(base, xi), xi
    for index, network in enumerate(networks):
        stretch, shift = _stretch_and_shift(network, index, y)
        y, density = y * jnp.exp(stretch) + shift, density - jnp.sum(stretch)
    z, volume = down(order, sizes.value[2], y, posterior, batch)
    return z, density - volume


def _log_density(sizes: Static, free: PyTree, order: Array, z: Array, posterior: LocalPosterior, batch: Batch) -> Array:
    base, networks = free
    y, volume, _ = up(order, sizes.value[2], z, posterior, batch)
    density = -volume
    for index, network in reversed(list(enumerate(networks))):
        stretch, shift = _stretch_and_shift(network, index, y)
        y, density = (y - shift) * jnp.exp(-stretch), density - jnp.sum(stretch)
    return density + _base_density(base, y)


def _ratios(
    sizes: Static, free: PyTree, order: Array, key: Key, posterior: LocalPosterior, batch: Batch
) -> tuple[Array, Array]:
    z, _ = _draw(sizes, free, order, key, posterior, batch)
    return jnp.exp(free[0].shape), up(order, sizes.value[2], z, posterior, batch)[2]


def _base_draw(key: Key, base: Base) -> Array:
    gamma_key, sign_key = jax.random.split(key)
    logarithm = jax.random.loggamma(gamma_key, jnp.exp(base.shape), dtype=base.shape.dtype)
    size = jnp.exp(base.width + logarithm / (2 * jnp.exp(base.power)))
    return jax.random.rademacher(sign_key, size.shape, size.dtype) * jnp.sqrt(2.0).astype(size.dtype) * size


def _base_density(base: Base, xi: Array) -> Array:
    shape, twice = jnp.exp(base.shape), 2 * jnp.exp(base.power)
    size = jnp.log(jnp.maximum(jnp.abs(xi), jnp.finfo(xi.dtype).tiny))
    logarithm = twice * (size - 0.5 * jnp.log(2.0) - base.width)
    inside = shape * logarithm - jnp.exp(logarithm) - jax.scipy.special.gammaln(shape)
    return jnp.sum(inside + jnp.log(twice) - size - jnp.log(2.0))


def _stretch_and_shift(network: Coupling, index: int, y: Array) -> tuple[Array, Array]:
    """What the entries that stay say of the others: bounded inputs, and the order of magnitude of each."""
    stays = (jnp.arange(y.size) + index) % 2 == 0
    seen = jnp.where(stays, y, 0.0)
    inputs = jnp.concatenate([seen / jnp.sqrt(1 + seen**2), jnp.where(stays, 0.5 * jnp.log(seen**2 + 1e-4), 0.0)])
    stretch, shift = jnp.split(jnp.tanh(inputs @ network.inner + network.bias) @ network.outer, 2)
    return jnp.where(stays, 0.0, _MOST * jnp.tanh(stretch / _MOST)), jnp.where(stays, 0.0, shift)
