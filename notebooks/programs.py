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
# # Programs as singularities
#
# A Turing machine whose rules are distributions is a smooth model, and a program is a point of its space of codes at
# which the loss vanishes. How much room there is around that point is exactly known: it is a linear programme over the
# ways in which the program can break.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

import slt_jax as slt
from slt_jax import programs, synthesis

# %% [markdown]
# ## One function, two programs
#
# Does a word have an A? Both programs look for one. The first halts where it finds it, the second runs on.

# %%
halting = programs.parse("""
    rej B -> rej B R      # look further
    rej A -> acc A S      # found one: stay, for ever
""")
running = programs.detect_a_running()
words, steps = ["A", "B", "AA", "AB", "BA", "BB"], 6

for run in programs.trace(halting, "BA", 3):
    print(run)
assert all(programs.run(halting, word, steps).state == programs.run(running, word, steps).state for word in words)

# %% [markdown]
# ## Two learning coefficients, exactly
#
# `weights` of the linear programme are carried by the mutations that matter, and its dual names what breaks the
# program: some mutations alone, others only together.

# %%
exact = {name: slt.truths.turing(program, words, steps) for name, program in (("halts", halting), ("runs on", running))}
print(exact["halts"].explain())
assert str(exact["halts"].learning_coefficient) == "44/5"
assert str(exact["runs on"].learning_coefficient) == "10"

# %% [markdown]
# The machine that runs on reads many more cells, and reads them with a rule that must not fail even once.

# %%
powers = slt.truths.mutation_spectrum(halting, words, steps)
print(f"of {powers.dimension} mutations {powers.counts[0]} break nothing alone; how often the others must strike:")
print(*powers.powers.items(), sep="\n")

# %% [markdown]
# ## What the posterior makes of it
#
# Both programs explain the examples perfectly. The odds between the codes that round to one or to the other are even
# under the prior, and grow as `(10 - 44/5) log nβ`: the posterior prefers the program that is harder to break.

# %%
ladder = [0.3, 1e1, 1e2, 1e4, 1e8, 1e11]
odds = synthesis.odds(jax.random.key(0), halting, running, words, steps, nbetas=ladder, draws=60, burnin=60, chains=16)
print(odds.explain())

figure, axes = plt.subplots(figsize=(6, 3.5))
axes.errorbar(np.log10(ladder), odds.log_odds, 2 * odds.log_odds_error, fmt="o-", label="measured")
rise = odds.log_odds[-1] + float(odds.predicted) * np.log(np.array(ladder[1:]) / ladder[-1])
axes.plot(np.log10(ladder[1:]), rise, "--", label="slope 6/5, exact")
axes.set_xlabel("log₁₀ nβ")
axes.set_ylabel("log odds, nats")
axes.legend()
plt.show()
assert abs(odds.log_odds[0]) < 0.05

# %% [markdown]
# ## Programs found from examples
#
# Chains that begin at random codes and are cooled end at programs. What they found is checked by running it, and sorted
# by how it breaks.

# %%
outputs = {word: "acc" if "A" in word else "rej" for word in words}
found = synthesis.search(jax.random.key(1), ["rej", "acc"], "_AB", outputs, steps, chains=16, sweeps=40)
print(f"{found.solves.sum()} of {len(found.programs)} chains found a program that answers right")
for family in synthesis.families(found.solutions[:6], words, steps):
    print(family.explain())
print(programs.render(found.solutions[0]))
assert found.solves.any()
