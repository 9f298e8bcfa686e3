# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The spectrometer
#
# One learning coefficient is one line of a spectrum. Here is the rest of it: the flow over temperatures, the density of
# states down to losses of 1e-10, what the Hessian can and cannot see, and single directions.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import slt_jax as slt

# %% [markdown]
# ## A loss with two scales
#
# `x² (y² + δ²)` is the singular `x²y²` while the temperature is high, and the regular valley `x²` once it is low: λ is
# 1/2 in the end, but less on the way, where the two coordinates still compete.


# %%
def loss_fn(weights, batch):
    return weights[0] ** 2 * (weights[1] ** 2 + 1e-4)


data = jnp.zeros((1000, 0))  # the loss is given in closed form: data say only how many examples there are
nbetas = jnp.geomspace(1e2, 1e6, 7)
flow = slt.flow(jax.random.key(0), loss_fn, jnp.zeros(2), data, nbetas=nbetas, gamma=1.0)
for nbeta, value, error, velocity in zip(nbetas, flow.value, flow.std_error, flow.velocity, strict=True):
    print(f"nβ {float(nbeta):9.0f}: λ {float(value):.4f} ± {float(error):.4f}, velocity {float(velocity):+.4f}")


def by_quadrature(nbeta):
    """The same mean, by summing over a grid."""
    y = np.linspace(-6, 6, 1201)
    # x is Gaussian given y: only y is left to sum over
    precision = 2 * nbeta * (y**2 + 1e-4) + 1.0
    weight = np.exp(-(y**2) / 2) / np.sqrt(precision)
    return float(np.sum(weight * nbeta * (y**2 + 1e-4) / precision) / np.sum(weight))


exact = np.array([by_quadrature(float(nbeta)) for nbeta in nbetas])
figure, axes = plt.subplots(figsize=(8, 3))
axes.errorbar(np.asarray(nbetas), np.asarray(flow.value), 2 * np.asarray(flow.std_error), fmt="o", label="chains")
axes.plot(np.asarray(nbetas), exact, color="black", label="quadrature")
axes.set(xscale="log", xlabel="nβ", ylabel="λ of nβ")
axes.legend()
assert np.abs(np.asarray(flow.value) - exact).max() < 0.01

# %% [markdown]
# ## Density of states
#
# From the prior down: how much of it lies below each loss. Its slope is λ; where a logarithm bends it, m shows.

# %%
states = slt.density_of_states(jax.random.key(1), loss_fn, jnp.zeros(2), data, gamma=1.0, depth=1e-10, draws=300)
print(states.explain())
assert abs(states.exponent.learning_coefficient - 0.5) < 0.02

# %% [markdown]
# ## What the Hessian cannot see
#
# At a degenerate minimum the Hessian counts only the directions in which the loss is quadratic. The rest of λ is the
# degenerate remainder: here `y⁴` has a learning coefficient of 1/4 and no curvature at all.


# %%
def quartic(weights, batch):
    return weights[0] ** 2 + weights[1] ** 4


estimate = slt.llc(jax.random.key(2), quartic, jnp.zeros(2), data, nbeta=1e4)
regular = slt.hessian_spectrum(jax.random.key(3), quartic, jnp.zeros(2), data).regular(1e4, 1.0)
print("λ̂:", estimate)
print("of it, by the Hessian:", regular.explain())
print("beyond the Hessian:", regular.remainder(estimate))
assert abs(float(estimate.value) - 0.75) < 0.1

# %% [markdown]
# ## Single directions
#
# How far each parameter moves as the temperature falls: its contact exponent. They add up to λ where the parameters are
# coordinates adapted to the singularity.

# %%
cold = slt.flow(jax.random.key(4), quartic, jnp.zeros(2), data, nbetas=jnp.geomspace(1e3, 1e6, 4), gamma=1.0)
for name, exponents in zip(cold.groups, cold.contact.T, strict=True):
    print(f"{name}: contact exponent {float(exponents[-1]):.3f}")
assert np.abs(np.asarray(cold.contact[-1]) - [0.5, 0.25]).max() < 0.02
