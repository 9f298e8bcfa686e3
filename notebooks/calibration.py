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
# # Calibration
#
# A learning coefficient is a mean along chains, and every chain has a step. What goes wrong when it is chosen by hand,
# how the wrong choice shows, and what the toolkit does instead.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import slt_jax as slt

# %% [markdown]
# ## A network with a known answer
#
# A deep linear network at a point of rank 2: its learning coefficient is exact.

# %%
WIDTHS, RANK = (6, 5, 6), 2
problem = slt.truths.deep_linear_problem(jax.random.key(0), WIDTHS, RANK, examples=20_000)
exact = float(slt.truths.deep_linear(WIDTHS, RANK).learning_coefficient)
posterior = slt.localise(*problem)
print("exact:", exact, "at nβ =", float(posterior.nbeta))

# %% [markdown]
# ## One step after another, in one program
#
# A sampler is a tree, so a whole sweep over step sizes is one `vmap` and compiles once.

# %%
sizes = jnp.geomspace(0.003, 1.5, 9) / posterior.nbeta


@jax.jit
def sweep(key, sizes):
    def one(size):
        trace = slt.sample(key, slt.samplers.sgld(size), posterior, problem.data, draws=2000, burnin=1000, chains=4)
        estimate = slt.llc_from(trace, posterior)
        return estimate.value, jnp.stack(estimate.interval), estimate.health.ok

    return jax.vmap(one)(sizes)


values, intervals, healthy = sweep(jax.random.key(1), sizes)
for size, value, (low, high), ok in zip(sizes, values, intervals, healthy, strict=True):
    verdict = "" if ok else "not healthy"
    print(
        f"nβ ε {float(size * posterior.nbeta):5.3f}: {float(value):6.2f}, {float(low):6.2f} to {float(high):6.2f}",
        verdict,
    )

figure, axes = plt.subplots(figsize=(8, 3))
shown = np.isfinite(np.asarray(values))
marks = np.where(np.asarray(healthy), "tab:blue", "tab:red")
axes.scatter(np.asarray(sizes * posterior.nbeta)[shown], np.asarray(values)[shown], c=marks[shown])
axes.axhline(exact, color="black", linestyle="--")
axes.set(
    xscale="log", xlabel="nβ ε", ylabel="λ̂", ylim=(0, 2 * exact), title="too small: not there yet; too large: too hot"
)

# steps that are far too large are known to be
assert not np.asarray(healthy)[-2:].any()
# in the middle a step serves by luck; whoever takes one half as large again and again reads λ too low, and looks
# healthy
low, high = np.asarray(intervals).T
print("intervals that hold the exact value:", (low <= exact) & (exact <= high))

# %% [markdown]
# ## Nothing to choose
#
# `llc` finds the step from the curvature that its chains meet, lets half of them come from above and half from below,
# and goes on until the verdict is good. What it chose is part of the answer.

# %%
estimate = slt.llc(jax.random.key(2), *problem)
print(estimate.explain())
assert bool(estimate.health.ok)
assert abs(float(estimate.value) - exact) < 4 * float(estimate.std_error) + 0.02 * exact

# %% [markdown]
# ## A centre that is not a minimum
#
# Moved off the minimum on purpose, the chains find lower loss than where they started. That is a reason for doubt,
# unless the centre may be moved back.

# %%
moved = jax.tree.map(lambda w: w + 0.01, problem.params)
off = slt.llc(jax.random.key(3), problem.loss_fn, moved, problem.data, polish=False)
back = slt.llc(jax.random.key(3), problem.loss_fn, moved, problem.data, polish=True)
print("left where it is:", off)
print("polished:        ", back)
assert bool(back.health.ok)
assert not bool(off.health.ok)
