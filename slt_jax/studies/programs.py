"""Study ``programs``: a code is annealed into a program, beside three programs of the same function."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from slt_jax import programs
from slt_jax.posterior import LocalPosterior
from slt_jax.problem import Problem
from slt_jax.programs import Program, code_from_logits, nearest_program, posterior_at, synthesis_problem
from slt_jax.programs.turing import surprise
from slt_jax.restriction import Restriction
from slt_jax.spectroscopy import Probe, Subject, Subloss
from slt_jax.studies.study import Study
from slt_jax.synthesis import LocalFlow, local_flow
from slt_jax.synthesis.competition import free_energies
from slt_jax.synthesis.search import random_start, sweep
from slt_jax.truths import Truth, turing
from slt_jax.types import Array, Key, PyTree

#: The rejecting state starts: a word has an A, or it has none.
STATES, SYMBOLS, STEPS = ("rej", "acc"), ("_", "A", "B"), 6
WORDS = tuple("".join(letters) for length in (1, 2) for letters in itertools.product("AB", repeat=length))
OUTPUTS = {word: "acc" if "A" in word else "rej" for word in WORDS}
#: Three programs that compute it: they halt, write an A and halt, or run on for ever.
REFERENCES: dict[str, Program] = {
    "halting": programs.detect_a(),
    "overwriting": programs.detect_a_overwriting(),
    "running on": programs.detect_a_running(),
}
SWEEPS, HOTTEST, COLDEST = 80, 3.0, 1000.0
#: Where λ_eff of a program stands still, and the ladder of the odds, from next to the prior.
NBETA = 1e12
LADDER = (0.3, 3.0, 30.0, 300.0, 1e4, 1e6, 1e8, 1e10, 1e12)


def study() -> Study:
    """What training is elsewhere is here the search for a program: one code, annealed by Hamiltonian Monte Carlo.

    At a checkpoint the code is rounded to a program, whose learning coefficient is measured and exactly known. Beside
    it stand three programs that compute the function asked for, with the coefficients 44/5, 124/13 and 10, and the
    posterior odds between them.

    Sources: Clift, Murfet & Wallbridge 2021, arXiv:2103.16080; Murfet & Troiani 2025, arXiv:2504.08075.

    >>> study().subject.problem.data["output"]
    Array([1, 0, 1, 1, 1, 0], dtype=int32)
    """
    problem = synthesis_problem(STATES, SYMBOLS, OUTPUTS, STEPS, HOTTEST)
    posterior, data = posterior_at(problem, HOTTEST), problem.data
    weighed = {**data, "weight": jnp.ones(len(WORDS))}
    lengths = jnp.array([len(word) for word in WORDS])
    subject = Subject(
        problem=Problem(_loss, problem.params, weighed),
        sublosses={
            f"words of length {length}": Subloss(_loss, {**data, "weight": (lengths == length) * 1.0})
            for length in (1, 2)
        },
        concepts={f"answers {word}": Partial(_certainty, data, jnp.asarray(index)) for index, word in enumerate(WORDS)},
    )
    settings: dict[str, float | int | None] = {"chains": 32, "draws": 120, "burnin": 80}
    dims = {"rules": ("table", "state", "symbol"), "values": ("program", "rung"), "errors": ("program", "rung")}
    dims |= {"log_odds": ("program", "rung"), "log_odds_errors": ("program", "rung"), "nbetas": ("rung",)}
    dims |= {"trace": ("chain", "trace_point")}
    return Study(
        name="programs",
        title="One function, three programs, three learning coefficients",
        summary=(
            "Does a word over A and B have an A? A code of a Turing machine with two states, a distribution for every "
            "entry of its tables, is annealed until it answers. What it rounds to is a program, and a program is a "
            "singularity: its learning coefficient is exactly known from the mutations that break it, and programs of "
            "the same function differ in it. The posterior prefers those that leave mutations the most room."
        ),
        subject=subject,
        init=Partial(_init, posterior, data),
        update=Partial(_update, posterior, data),
        params_of=_params_of,
        record_at=np.arange(0, SWEEPS + 1),
        keep_at=np.arange(0, SWEEPS + 1, 4),
        probes={"llc": Probe(measure_program, {"nbeta": NBETA, **settings}, None, dims)},
        whole_probes={"programs": Probe(measure_references, settings, None, dims)},
        budget=4,
        exact=exact,
    )


def program_of(params: PyTree) -> Program:
    """The program that a code rounds to."""
    return nearest_program(code_from_logits(params), STATES, SYMBOLS)


def exact(params: PyTree) -> Truth:
    """λ and m of the program that a code rounds to, at predicting its own outputs."""
    truth = turing(program_of(params), WORDS, STEPS)
    return Truth(truth.learning_coefficient, truth.multiplicity, truth.source)


def measure_program(
    key: Key, problem: Problem, restriction: Restriction | None, *, nbeta: float, chains: int, draws: int, burnin: int
) -> dict[str, Any]:
    """λ_eff of the program that the checkpoint rounds to, and in words what breaks it."""
    del restriction  # a program has no parts that could be frozen
    program = program_of(problem.params)
    flow = local_flow(key, program, WORDS, STEPS, nbetas=[nbeta], chains=chains, draws=draws, burnin=burnin)
    truth = turing(program, WORDS, STEPS)
    wrong = [word for word in WORDS if truth.outputs[word] != OUTPUTS[word]]
    task = f"It answers {', '.join(wrong)} wrongly." if wrong else "It computes the function."
    verdict = "" if flow.ok else f" UNHEALTHY: rhat: R-hat {flow.rhat[0]:.3f}; the chains disagree: more draws."
    return {
        "value": np.asarray(flow.value[0]),
        "std_error": np.asarray(flow.std_error[0]),
        "healthy": np.asarray(flow.ok),
        "explanation": np.asarray(f"{task} {truth.explain()}{verdict}"),
        "wrong": np.asarray(float(len(wrong))),
        "rules": np.array([program.write, program.next_state, program.move]),
        "trace": flow.energy[0],
    }


def measure_references(
    key: Key, problem: Problem, restriction: Restriction | None, *, chains: int, draws: int, burnin: int
) -> dict[str, Any]:
    """The three programs on a ladder from the prior: λ_eff, and the log odds of each against the last.

    They have nothing to do with the checkpoint, and are measured once in a process.
    """
    del key, problem, restriction
    flows = _reference_flows(chains, draws, burnin)
    free = [free_energies(flow) for flow in flows]
    log_odds = np.stack([free[-1][0] - values for values, _ in free])
    errors = np.stack([np.hypot(free[-1][1], error) for _, error in free])
    errors[-1] = 0.0
    healthy = all(flow.ok for flow in flows)
    said = "Log odds of the first of the three programs against the last at the coldest temperature, nats."
    return {
        "value": np.asarray(log_odds[0, -1]),
        "std_error": np.asarray(errors[0, -1]),
        "healthy": np.asarray(healthy),
        "explanation": np.asarray(said if healthy else f"{said} UNHEALTHY: rhat: the chains of a rung disagree."),
        "nbetas": np.array(LADDER),
        "values": np.stack([flow.value for flow in flows]),
        "errors": np.stack([flow.std_error for flow in flows]),
        "log_odds": log_odds,
        "log_odds_errors": errors,
    }


@functools.cache
def _reference_flows(chains: int, draws: int, burnin: int) -> tuple[LocalFlow, ...]:
    keys = jax.random.split(jax.random.key(0), len(REFERENCES))
    settings = {"nbetas": LADDER, "chains": chains, "draws": draws, "burnin": burnin}
    return tuple(
        local_flow(key, program, WORDS, STEPS, **settings)  # type: ignore[arg-type]
        for key, program in zip(keys, REFERENCES.values(), strict=True)
    )


def _init(posterior: LocalPosterior, data: PyTree, key: Key) -> PyTree:
    start_key, run_key = jax.random.split(key)
    return {"key": run_key, "chain": random_start(start_key, posterior, data)}


def _update(posterior: LocalPosterior, data: PyTree, state: PyTree, step: Array) -> PyTree:
    nbeta = HOTTEST * (COLDEST / HOTTEST) ** (step / (SWEEPS - 1))
    move_key = jax.random.fold_in(state["key"], step)
    return {**state, "chain": sweep(move_key, state["chain"], posterior, data, nbeta)}


def _params_of(state: PyTree) -> PyTree:
    return state["chain"].position


def _loss(logits: PyTree, batch: PyTree) -> Array:
    return surprise(code_from_logits(logits), batch) * batch["weight"]


def _certainty(data: PyTree, index: Array, logits: PyTree) -> Array:
    """``2 p - 1`` with p the probability of the right answer: 0 where the code tosses a coin, 1 where it knows."""
    one = jax.tree.map(lambda leaf: leaf[index][None], data)
    return 2 * jnp.exp(-surprise(code_from_logits(logits), one)[0]) - 1
