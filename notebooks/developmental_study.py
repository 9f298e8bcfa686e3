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
# # A developmental study
#
# History, phases, checkpoints, readings, alignment, construction: each step is a pure function of the one before. The
# network is the default study's, a deep linear network that learns a hierarchy of living things, because every answer
# is known: which distinction comes when, which splits which, and the learning coefficient of every plateau.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

from slt_jax.spectroscopy import (
    Checkpoint,
    align,
    choose_checkpoints,
    construct,
    detect_phases,
    essential_dynamics,
    even_in_log,
    llc_probe,
    recorder_of,
    relations,
    scan,
)
from slt_jax.studies import semantics
from slt_jax.studies.study import train

# %% [markdown]
# ## History
#
# Losses, sublosses and concepts are recorded inside the compiled loop of training; outputs along random directions,
# too.

# %%
study = semantics.study()
kept = {}
history = train(
    jax.random.key(0),
    study,
    recorder_of(study.subject, study.record_at),
    keep=kept.__setitem__,
    progress=lambda done, total: None,
)
print(len(history.steps), "records of", list(history.losses))

# %% [markdown]
# ## Phases, each boundary with an interval
#
# A transition is a peak of the joint speed of all losses that neither noise nor a trend makes.

# %%
phases = detect_phases(history)
for step, (low, high) in zip(phases.transitions, phases.intervals, strict=True):
    print(f"transition at step {step}, between {low:.0f} and {high:.0f}")
assert len(phases.transitions) == 4

moved = essential_dynamics(history, weights=even_in_log(history.steps))
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
for name, curve in history.losses.items():
    left.semilogx(history.steps[1:], curve[1:], label=name)
for low, high in phases.intervals:
    left.axvspan(low, high, color="grey", alpha=0.4)
left.set(xlabel="step", ylabel="loss, nats")
left.legend(fontsize=7)
right.scatter(moved.scores[:, 0], moved.scores[:, 1], c=np.log1p(moved.steps), s=4)
right.set(xlabel="component 1", ylabel="component 2", title="where the outputs went")

# %% [markdown]
# ## Checkpoints and readings
#
# The plateaus first, then dense around the transitions, within a budget. Each checkpoint is read on its own outputs, of
# which it is a minimum. Chains are shorter here than in the study.

# %%
chosen = choose_checkpoints(phases, list(kept), budget=5)
checkpoints = [Checkpoint(step, lambda step=step: kept[step]) for step in chosen]
probes = {"llc": llc_probe(nbeta=1e4, draws=2000, burnin=2000, chains=8)}
readings = {}
for cell in scan(jax.random.key(1), study.subject, checkpoints, probes):
    readings[cell.step] = float(cell.reading["value"]), float(cell.reading["std_error"])
    exact = study.exact(kept[cell.step]).learning_coefficient
    value, error = readings[cell.step]
    print(f"step {cell.step}: {value:.1f} ± {error:.1f}, exactly {exact}")

# %% [markdown]
# ## Alignment against chance
#
# Are acquisitions of concepts nearer to transitions than shifting all of them would make them? Eight concepts that come
# in four steps are few: by itself no pair survives the control of false discoveries, and the report of the study says
# so. The order is another matter.

# %%
alignment = align(history, phases, expected_order=study.expected_order)
print("learned, in this order:", alignment.order)
print(alignment.orders[0])

# %% [markdown]
# ## Construction
#
# Which phase splits what an earlier one brought is read off the answers. Whether a phase was built on another is shown
# by an intervention: its change is put into the network without the change of the other. The modes of a linear network
# are independent, however hierarchical the data: they refine one another, and none was built on any.

# %%
found = relations(study.subject, phases, [Checkpoint(step, lambda step=step: kept[step]) for step in kept])
construction = construct(
    history,
    phases,
    alignment,
    readings,
    refined=found.refined,
    grafted=found.grafted,
    untested=found.untested,
)
print(construction.describe())
print(construction.to_dot())
assert {edge.kind for edge in construction.edges} == {"refines"}
assert not any(edge.found for edge in construction.relations if edge.kind == "was built on")
