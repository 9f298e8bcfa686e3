"""The judges are judged: quadrature, exact conditional draws and NUTS against each other, and the table they serve."""

import json
import math
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import slt_jax as slt
from slt_jax import truths

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import accuracy
import cases
import chains
import oracles
import problems
import quadrature
import tables

NBETA, GAMMA = 200.0, 1.0
PLANE = [quadrature.panels(9.0, 1e-3, 12)] * 2


def on_plane(problem, nbeta=NBETA, gamma=GAMMA):
    """``nβ E[K]`` of the library's own loss of two parameters, by the product rule."""
    flat, unflatten = jax.flatten_util.ravel_pytree(problem.params)
    assert flat.shape == (2,)
    losses = jax.jit(jax.vmap(lambda point: problem.loss_fn(unflatten(point), problem.data)))
    return quadrature.energy(PLANE, lambda points: np.asarray(losses(points.astype(np.float32)), float), nbeta, gamma)


def deviation(found: chains.Average, exact: float) -> float:
    return abs(found.value - exact) / found.std_error


# --- quadrature ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exponents", [(1,), (1, 1), (2, 1), (2, 2)])
def test_two_quadratures_of_a_normal_crossing_agree(exponents):
    exact = truths.normal_crossing_energy(exponents, NBETA, GAMMA)
    assert quadrature.crossing(exponents, NBETA, GAMMA) == pytest.approx(exact, rel=1e-9)
    assert quadrature.crossing(exponents, NBETA, 2 * GAMMA) != pytest.approx(exact, rel=1e-3)


def test_a_quadratic_has_its_known_energy():
    found = quadrature.energy(PLANE, lambda w: 0.5 * (w @ np.diag([1.0, 0.1]) * w).sum(axis=1), NBETA, GAMMA)
    assert found == pytest.approx(0.5 * (NBETA / (NBETA + GAMMA) + 0.1 * NBETA / (0.1 * NBETA + GAMMA)), rel=1e-9)


@pytest.mark.parametrize(
    ("problem", "exact"),
    [
        (truths.tanh_problem(1), quadrature.tanh_units(1, NBETA, GAMMA)),
        (truths.gaussian_mixture_problem(1), quadrature.mixture(1, NBETA, GAMMA)),
        (truths.normal_crossing_problem([1, 2]), quadrature.crossing((1, 2), NBETA, GAMMA)),
    ],
    ids=["tanh", "mixture", "crossing"],
)
def test_quadrature_is_of_the_loss_that_is_sampled(problem, exact):
    # the library's loss is in single precision here
    assert on_plane(problem) == pytest.approx(exact, rel=1e-5)
    assert on_plane(problem, nbeta=2 * NBETA) != pytest.approx(exact, rel=1e-2)


def test_a_mixture_of_three_parameters_agrees_with_a_plain_product_rule():
    problem = truths.gaussian_mixture_problem(2)
    losses = jax.jit(jax.vmap(lambda w: problem.loss_fn({"logit": w[0], "means": w[1:]}, problem.data)))
    rule = [quadrature.panels(8.0, 1.0, 5)] * 3
    found = quadrature.energy(rule, lambda points: np.asarray(losses(points.astype(np.float32)), float), 10.0, GAMMA)
    assert found == pytest.approx(quadrature.mixture(2, 10.0, GAMMA), rel=1e-4)
    assert found != pytest.approx(quadrature.mixture(2, 11.0, GAMMA), rel=1e-3)


# --- chains ----------------------------------------------------------------------------------------------------------

SCALAR = np.array([[0.7]]), np.array([[0.3]])


def scalar_energy(target):
    """A linear network of widths 1, 1, 1 at (1.5, 0.2), in two dimensions by quadrature."""
    center = np.array([1.5, 0.2])

    def loss(points):
        first, second = (points + center).T
        return 0.5 * SCALAR[0][0, 0] * (first * second - target) ** 2

    return quadrature.energy(PLANE, loss, NBETA, GAMMA)


def test_conditional_draws_agree_with_quadrature():
    layers = [np.array([[1.5]]), np.array([[0.2]])]
    found = chains.linear_network(*SCALAR, layers, NBETA, GAMMA, 0.0, sweeps=4000)
    assert deviation(found, scalar_energy(0.3)) < 4
    assert deviation(found, scalar_energy(0.0)) > 8
    assert found.rhat < 1.01


def test_a_single_layer_is_drawn_exactly():
    gram, target = np.diag([1.0, 0.1]), np.array([[0.5, -0.2], [0.1, 0.3]])
    found = chains.linear_network(gram, target, [target], NBETA, GAMMA, 0.0, sweeps=20)
    stiffness = NBETA * np.diag(gram)
    assert found.value == pytest.approx(np.sum(stiffness / (stiffness + GAMMA)), rel=1e-12)


def test_nuts_agrees_with_quadrature_on_a_network_of_two_parameters():
    inputs = np.random.default_rng(0).normal(size=(40, 1))
    first, second = np.array([[0.8]]), np.array([[0.5]])
    targets = np.tanh(inputs @ first.T) @ second.T + 0.1

    def loss(points):
        answers = (points[:, 1:] + second[0]) * np.tanh((points[:, :1] + first[0]) * inputs[:, 0])
        return 0.5 * np.mean((answers - targets[:, 0]) ** 2, axis=1) - 0.005

    exact, other = (quadrature.energy(PLANE, loss, nbeta, GAMMA) for nbeta in (NBETA, 2 * NBETA))
    run = partial(chains.two_layers, jnp.tanh, inputs, targets, (first, second), NBETA, GAMMA)
    found = run(integrate=False, chains=8, draws=1500)
    assert deviation(found, exact) < 4
    assert deviation(found, other) > 4
    assert found.rhat < 1.005


def test_nuts_agrees_with_quadrature_where_a_unit_is_dead():
    problem = problems.perceptron(1, (1, 2, 1), 1, 200)
    data = [np.asarray(leaf, float) for leaf in (*problem.data, *problem.params)]
    fine, coarse = (
        quadrature.one_input_network(*data[:2], tuple(data[2:]), NBETA, GAMMA, quadrature.panels(7.0, finest, order))
        for finest, order in ((0.1, 12), (1.0, 6))
    )
    assert fine == pytest.approx(coarse, rel=1e-3)
    found = chains.two_layers(jnp.tanh, *data[:2], tuple(data[2:]), NBETA, GAMMA, chains=8)
    assert deviation(found, fine) < 4
    assert deviation(found, quadrature.one_input_network(*data[:2], tuple(data[2:]), NBETA, 4 * GAMMA)) > 8


def test_split_rhat_sees_chains_apart_and_chains_that_drift():
    draws = np.random.default_rng(0).normal(size=(8, 2000))
    assert chains.split_rhat(draws) < 1.01
    assert chains.split_rhat(draws + np.arange(8)[:, None]) > 1.5
    assert chains.split_rhat(draws + np.linspace(0, 3, 2000)) > 1.2


# --- the problems ----------------------------------------------------------------------------------------------------


def test_reduced_rank_regression_sits_at_the_minimum_of_its_data():
    task = problems.reduced_rank_task(0, 4, 2, 3, 1, 200)
    loss = jax.jit(lambda params: jnp.mean(task.problem.loss_fn(params, task.problem.data)))
    assert abs(task.center_excess()) < 1e-6
    generator = np.random.default_rng(0)
    for _ in range(20):
        moved = tuple(leaf + 0.1 * generator.normal(size=leaf.shape).astype(np.float32) for leaf in task.problem.params)
        assert float(loss(moved)) > float(loss(task.problem.params))


@pytest.mark.parametrize(("dead", "noise"), [(2, 0.0), (0, 1.0)])
def test_perceptrons_sit_at_a_minimum_of_their_data(dead, noise):
    problem = problems.perceptron(0, (3, 4, 2), dead, 1000, noise=noise)
    assert int(np.sum(~np.any(problem.params[0], axis=1) & ~np.any(problem.params[1], axis=0))) == dead
    slope = jax.grad(lambda params: jnp.mean(problem.loss_fn(params, problem.data)))
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(slope(problem.params))) < 2e-6
    away = jax.tree.map(lambda leaf: leaf + 0.1, problem.params)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(slope(away))) > 1e-3


def test_sufficient_statistics_give_the_loss_of_the_examples():
    widths, rank, examples = (4, 3, 5), 2, 500
    task = problems.sampled_task(3, widths, rank, examples)
    generator = np.random.default_rng(3)
    inputs = generator.normal(size=(examples, 4))
    outputs = inputs @ problems.product(task.problem.params).T + generator.normal(size=(examples, 5))

    def mean_loss(params):
        return 0.5 * np.mean(np.sum((inputs @ problems.product(params).T - outputs) ** 2, axis=1))

    away = jax.tree.map(lambda leaf: leaf + 0.1, task.problem.params)
    exact = mean_loss(away) - mean_loss(task.problem.params)
    here, there = (float(task.problem.loss_fn(params, task.problem.data)) for params in (task.problem.params, away))
    assert there - here == pytest.approx(exact, rel=1e-4)
    # the true parameters are no minimum of drawn data
    assert task.center_excess() > 0


# --- the table -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table():
    return {family: cases.cases(family) for family in cases.FAMILIES}


def test_every_case_has_a_name_of_its_own_and_an_exact_value(table):
    entries = json.loads(oracles.STORE.read_text())
    for family, rows in table.items():
        assert len({case.name for case in rows}) == len(rows)
        for case in rows:
            kept = f"{family}: {case.same_as or case.name}" in entries
            assert case.long_run is None or kept, case.name
            assert case.theorem is not None if case.judge == "theorem" else case.quadrature or kept, case.name


def test_oracles_are_good_to_half_a_per_cent():
    for name, entry in json.loads(oracles.STORE.read_text()).items():
        assert entry["std_error"] <= 0.005 * entry["value"], name
        if "check" in entry:
            error = math.hypot(entry.get("check_error", 0.0), entry["std_error"])
            # where the energy hardly varies both errors are far below what either answer claims
            assert abs(entry["check"] - entry["value"]) < 4 * error + 1e-4 * entry["value"], name


def test_the_table_holds_what_was_asked_for(table):
    assert [case.theorem for case in table["reduced rank"]] == [6.5, 8, 6, 6, 6]
    for case in table["pointwise"]:
        widths, rank = case.name.split(", rank ")
        sizes = [int(size) for size in widths.strip("()").split(", ")]
        assert case.theorem > truths.deep_linear(sizes, int(rank)).learning_coefficient
    depths = {family: {case.name.split(", rank")[0].count(",") for case in table[family]} for family in ("1K", "10K")}
    assert depths["1K"] <= set(range(2, 6))
    assert depths["10K"] <= set(range(2, 11))
    assert len(table["1K"]) == 40
    assert len(table["10K"]) == 10


def test_an_oracle_of_another_temperature_is_refused(table):
    case = table["reduced rank"][0]
    problem = case.build()
    assert oracles.stored(case, problem)["value"] > 0
    with pytest.raises(ValueError, match="temperature"):
        oracles.stored(case._replace(settings={"nbeta": 10.0}), problem)
    with pytest.raises(ValueError, match="signature"):
        oracles.stored(case, problem._replace(params=jax.tree.map(lambda leaf: 2 * leaf, problem.params)))


def test_an_unknown_family_is_refused():
    with pytest.raises(ValueError, match="families"):
        cases.cases("2K")


@pytest.mark.parametrize("name", accuracy.SAMPLERS[1:])
def test_every_sampler_can_be_asked_for(name):
    problem = slt.Problem(Partial(lambda w, x: 0.5 * jnp.sum(w**2) * jnp.ones_like(x)), jnp.zeros(4), jnp.zeros(100))
    case = cases.Case("quadratic", "4", lambda: problem, {"budget": 400}, "theorem", 2.0)
    settings = accuracy.settings_for(name, jax.random.key(0), case, problem)
    assert isinstance(settings["sampler"], slt.Sampler)
    assert "budget" not in settings
    each = accuracy.LEAPFROGS if name == "hmc" else 1
    assert each * (settings["draws"] + settings["burnin"]) == 400


def row(value, exact, *, error=1.0, healthy=True, **more):
    figures = {"relative_error": value / exact - 1, "z": (value - exact) / error, "value": value, "exact": exact}
    known = {"judge": "theorem", "theorem": exact, "oracle": None, "cpu_s": 1.0, "batch_size": None}
    return {"family": "f", "case": "c", "seed": 0, "sampler": "default", "healthy": healthy, **known, **figures, **more}


def test_a_summary_adds_up():
    rows = [row(100.0, 100.0), row(212.0, 200.0, error=5.0), row(303.0, 300.0, healthy=False), row(math.nan, 400.0)]
    rows[3]["healthy"] = False
    found = tables.summary(rows)
    assert (found["rows"], found["green"], found["false_green"], found["false_red"]) == (4, 2, 1, 1)
    assert found["median"] == pytest.approx(0.03)
    assert found["largest"] == pytest.approx(0.06)
    assert (found["coverage"], found["coverage_3"]) == (0.5, 1.0)
    assert found["rms"] == math.inf
    assert tables.rank_correlation(rows[:3]) == pytest.approx(1.0)
    assert tables.rank_correlation([row(3.0, 1.0), row(2.0, 2.0), row(1.0, 3.0)]) == pytest.approx(-1.0)


def test_batches_are_paired_with_all_of_the_data():
    rows = [row(100.0, 100.0, case="a"), row(103.0, 100.0, case="a, batch 50", batch_size=50)]
    (pair,) = tables.beyond_full_batch(rows)
    assert pair["beyond"] == pytest.approx(0.03)
    assert "a, batch 50" in tables.markdown(rows)


def test_a_later_line_replaces_an_earlier_one(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [row(1.0, 2.0), row(2.0, 2.0), row(3.0, 2.0, seed=1)]
    path.write_text("".join(json.dumps(line) + "\n" for line in [*rows, {"benchmark": "accuracy"}]))
    assert [line["value"] for line in accuracy.read(path)] == [2.0, 3.0]
