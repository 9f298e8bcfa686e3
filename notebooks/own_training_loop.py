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
# # Your own training loop
#
# Nothing has to be handed over: a model of Flax nnx, an optimiser of optax, a jitted step. The recorder rides along
# inside the step, checkpoints are kept as you like, and afterwards the spectroscope looks at what was kept.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx

import slt_jax as slt
from slt_jax.spectroscopy import Checkpoint, Subject, Subloss, detect_phases, llc_probe, recorder_of, scan

# %% [markdown]
# ## A task with two parts
#
# Two products of inputs are to be learned, the second three times weaker. Each gets a loss of its own.

# %%
STEPS = 1500
inputs = jax.random.rademacher(jax.random.key(0), (256, 4), jnp.float32)
targets = jnp.stack([inputs[:, 0] * inputs[:, 1], inputs[:, 2] * inputs[:, 3] / 3], axis=1)
data = {"inputs": inputs, "targets": targets}


class Network(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(4, 12, rngs=rngs, kernel_init=nnx.initializers.normal(0.1))
        self.output = nnx.Linear(12, 2, rngs=rngs, kernel_init=nnx.initializers.normal(0.1))

    def __call__(self, x):
        return self.output(jnp.tanh(self.hidden(x)))


def objective(outputs, batch):
    return 0.5 * jnp.sum((outputs - batch["targets"]) ** 2, axis=1)


def part(column, outputs, batch):
    return 0.5 * (outputs[:, column] - batch["targets"][:, column]) ** 2


model = Network(nnx.Rngs(0))
loss_fn, params = slt.flax.from_nnx(model, objective)
strong, weak = (
    slt.flax.from_nnx(model, lambda outputs, batch, c=column: part(c, outputs, batch))[0] for column in (0, 1)
)
subject = Subject(
    problem=slt.Problem(loss_fn, params, data),
    sublosses={"strong": Subloss(strong, data), "weak": Subloss(weak, data)},
    restrictions={
        "hidden": slt.restriction.paths(params, "hidden/*"),
        "output": slt.restriction.paths(params, "output/*"),
    },
)

# %% [markdown]
# ## The loop
#
# The recording is one more value that the jitted step hands on. Only at the chosen steps is anything computed.

# %%
recorder = recorder_of(subject, np.arange(0, STEPS + 1, 10))
optimizer = nnx.Optimizer(model, optax.adam(3e-3), wrt=nnx.Param)


@nnx.jit
def train_step(model, optimizer, recording, step):
    recording = recorder.record(recording, step, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    gradient = nnx.grad(lambda model: jnp.mean(objective(model(data["inputs"]), data)))(model)
    optimizer.update(model, gradient)
    return recording


recording, kept = recorder.init(), {}
for step in range(STEPS + 1):
    if step in (0, 50, 100, 150, 200, 300, 400, 600, 1000, 1500):
        kept[step] = jax.tree.map(jnp.array, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    recording = train_step(model, optimizer, recording, jnp.asarray(step))

history = recorder.history(recording)
phases = detect_phases(history)
print("transitions at steps", phases.transitions)

# %% [markdown]
# ## What was kept, measured
#
# A checkpoint is a step and a function that loads it: from memory here, from any file elsewhere. The last of them is a
# minimum; the verdict of the others says that they are not, and what the chains found instead.

# %%
checkpoints = [Checkpoint(step, lambda value=value: value) for step, value in kept.items()]
probes = {"llc": llc_probe(nbeta=1e4, gamma=10.0, draws=1000, burnin=1000, resolution=True)}
cells = list(scan(jax.random.key(1), subject, checkpoints[-3:], probes, restrictions=["full", "hidden", "output"]))
for cell in cells:
    verdict = "healthy" if cell.reading["healthy"] else "not healthy"
    print(
        cell.step,
        cell.restriction,
        cell.subloss,
        f"{cell.reading['value']:.1f} ± {cell.reading['std_error']:.1f}",
        verdict,
    )
assert all(cell.error is None for cell in cells)

figure, axes = plt.subplots(figsize=(8, 3))
for name, curve in history.losses.items():
    axes.semilogx(history.steps[1:], curve[1:], label=name)
axes.set(xlabel="step", ylabel="loss, nats")
axes.legend()
assert history.losses["strong"][-1] < 0.05
