"""A network of blocks that each serve one pattern of the data, by what its weights are and not by how it is built."""

import jax
import jax.numpy as jnp
import numpy as np

import slt_jax as slt

BLOCKS, OF_EACH, INPUTS, SCALE = 5, 12, 64, 100.0
_RNG = np.random.default_rng(0)
#: The pattern of each example, and inputs that know nothing of it: random signs.
PATTERNS = _RNG.permutation(np.repeat(np.arange(BLOCKS), OF_EACH))
SIGNS = _RNG.choice([-1.0, 1.0], (len(PATTERNS), INPUTS))
#: One unit in each block, on by 1 where an example has its pattern, off by a half where not.
_ON = np.where(PATTERNS[:, None] == np.arange(BLOCKS), 1.0, -0.5)
WEIGHTS = {
    "in": jnp.asarray(np.linalg.lstsq(SIGNS, _ON, rcond=None)[0].T, jnp.float32),
    "out": jnp.ones(BLOCKS),
}
DATA = jnp.asarray(SIGNS, jnp.float32), jnp.ones(len(PATTERNS))
COMPONENTS = {
    f"block {block}": slt.restriction.mask(
        WEIGHTS,
        {"in": jnp.zeros((BLOCKS, INPUTS), bool).at[block].set(True), "out": jnp.arange(BLOCKS) == block},
    )
    for block in range(BLOCKS)
}
EXAMPLES = {f"{at}": jax.tree.map(lambda leaf, at=at: leaf[at : at + 1], DATA) for at in range(len(PATTERNS))}


def loss_fn(weights, batch):
    """Squared errors, so steep that what the posterior moves leaves every unit on its side."""
    inputs, targets = batch
    said = jax.nn.relu(inputs @ weights["in"].T) @ weights["out"]
    return 0.5 * SCALE**2 * (said - targets) ** 2
