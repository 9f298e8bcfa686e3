"""Bayesian linear regression: a Gaussian posterior, and every covariance of losses in closed form."""

import jax.numpy as jnp
import numpy as np

EXAMPLES, INPUTS = 40, 16
NBETA, GAMMA = 100.0, 1.0
_DRAW = np.random.default_rng(0).normal
FEATURES = _DRAW(size=(EXAMPLES, INPUTS))
TARGETS = FEATURES @ _DRAW(size=INPUTS) + _DRAW(size=EXAMPLES)
OTHERS = _DRAW(size=(12, INPUTS)), 2 * _DRAW(size=12)
WEIGHTS = np.linalg.lstsq(FEATURES, TARGETS, rcond=None)[0]
HESSIAN = FEATURES.T @ FEATURES / EXAMPLES


def single(*arrays):
    return tuple(jnp.asarray(array, jnp.float32) for array in arrays)


DATA, HELD_OUT, CENTER = single(FEATURES, TARGETS), single(*OTHERS), single(WEIGHTS)[0]


def loss_fn(weights, batch):
    return 0.5 * (batch[0] @ weights - batch[1]) ** 2


def spread(nbeta=NBETA, gamma=GAMMA, free=slice(None)):
    """Covariance matrix of ``z`` under the tempered, localised posterior at the least squares solution."""
    matrix = np.zeros((INPUTS, INPUTS))
    matrix[free, free] = np.linalg.inv((nbeta * HESSIAN + gamma * np.eye(INPUTS))[free, free])
    return matrix


def loss_covariance(left, right, covariance):
    """``Cov(½ u², ½ v²)`` of residuals ``u``, ``v`` whose means are those at the centre: ``r s t + s² / 2``."""
    (x, y), (x_right, y_right) = left, right
    joint = x @ covariance @ x_right.T
    return np.outer(x @ WEIGHTS - y, x_right @ WEIGHTS - y_right) * joint + 0.5 * joint**2
