"""The recorder: the same history from a jitted step, a scan or by hand, and nothing computed at any other step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from jax.tree_util import Partial
from laws import compilations, regression

from slt_jax import flax as slt_flax
from slt_jax import storage
from slt_jax.problem import Problem
from slt_jax.spectroscopy import History, Recorder, Subject, Subloss, norms, project_outputs, recorder_of
from slt_jax.spectroscopy.recorder import finite, measure_all
from slt_jax.studies.study import Study, train

DATA = jnp.linspace(-1.0, 2.0, 16)
STEPS = np.array([0, 1, 4, 9])
START = jnp.float32(3.0)


def descend(params, step):
    """Gradient descent on the mean of ``regression``, with a rate that depends on the step."""
    return params - 0.1 / (1 + step) * (params - jnp.mean(DATA))


def half_way(params):
    return params / 2


SUBJECT = Subject(
    Problem(regression, START, DATA),
    sublosses={"low": Subloss(regression, DATA[:8])},
    concepts={"half": half_way},
)


def direct():
    """The same history with nothing but a Python loop."""
    params, rows = START, []
    for step in range(int(STEPS[-1]) + 1):
        if step in STEPS:
            rows.append([np.mean((params - part) ** 2) / 2 for part in (DATA, DATA[:8])] + [float(params) / 2])
        params = descend(params, step)
    everything, low, half = np.array(rows).T
    return History(STEPS, {"all": everything, "low": low}, {"half": half})


def recorded_in_a_loop():
    recorder = recorder_of(SUBJECT, STEPS)

    @jax.jit
    def step_and_record(recorder, recording, params, step):
        return recorder.record(recording, step, params), descend(params, step)

    recording, params = recorder.init(), START
    for step in range(12):
        recording, params = step_and_record(recorder, recording, params, step)
    return recorder.history(recording)


def recorded_in_a_scan():
    recorder = recorder_of(SUBJECT, STEPS)

    @jax.jit
    def run(recorder):
        def body(carry, step):
            recording, params = carry
            return (recorder.record(recording, step, params), descend(params, step)), None

        return jax.lax.scan(body, (recorder.init(), START), jnp.arange(12))[0][0]

    return recorder.history(run(recorder))


def recorded_by_a_study():
    study = Study(
        "line", "", "", SUBJECT, lambda key: START, descend, lambda params: params, STEPS, np.array([0, 2, 9]), {}
    )
    kept, seen = {}, []
    history = train(
        jax.random.key(0), study, recorder_of(SUBJECT, STEPS), kept.__setitem__, lambda d, t: seen.append((d, t))
    )
    params = START
    for step in range(2):
        params = descend(params, step)
    np.testing.assert_allclose(kept[2], params, rtol=1e-6)
    assert list(kept) == [0, 2, 9]
    assert seen == [(0, 9), (2, 9), (9, 9)]
    return history


def assert_equal_histories(left, right, rtol=1e-6):
    np.testing.assert_array_equal(left.steps, right.steps)
    for ours, theirs in zip(left[1:], right[1:], strict=True):
        assert list(ours) == list(theirs)
        for name in ours:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=rtol)


def recorded_beside_a_loop():
    recorder, history, params = recorder_of(SUBJECT, STEPS), None, START
    for step in range(12):
        if step in STEPS:
            history = recorder.look(history, step, params)
        params = descend(params, step)
    return history


@pytest.mark.parametrize(
    "record", [recorded_in_a_loop, recorded_in_a_scan, recorded_by_a_study, recorded_beside_a_loop]
)
def test_a_recorder_gives_the_history_of_a_direct_evaluation(record):
    history = record()
    assert_equal_histories(history, direct())
    late = direct()._replace(losses={name: np.roll(curve, 1) for name, curve in direct().losses.items()})
    with pytest.raises(AssertionError):
        assert_equal_histories(history, late)


def test_nothing_is_computed_at_other_steps():
    looked = []

    def watched(params):
        jax.debug.callback(lambda value: looked.append(float(value)), params)
        return params

    recorder = Recorder(jnp.asarray(STEPS), {"all": Partial(watched)}, {})
    body = jax.jit(lambda step, recording: recorder.record(recording, step, 1.0 * step))
    recording = recorder.init()
    for step in range(12):
        recording = body(step, recording)
    jax.effects_barrier()
    assert looked == [0.0, 1.0, 4.0, 9.0]
    np.testing.assert_array_equal(recorder.history(recording).losses["all"], STEPS)


def test_what_is_looked_at_beside_a_loop_is_compiled_once_and_must_go_forward():
    recorder = recorder_of(SUBJECT, [0])
    history = recorder.look(recorder.look(None, 2, START), 5, START)
    with compilations() as seen:
        history = recorder.look(history, 9, START)
    assert seen == []
    with pytest.raises(ValueError, match=r"step: got 9 after 9; steps must increase"):
        recorder.look(history, 9, START)
    other = recorder_of(Subject(SUBJECT.problem), [0])
    with pytest.raises(ValueError, match=r"history: its losses are \['all', 'low'\], those of step 12 \['all'\]"):
        other.look(history, 12, START)


# --- beside Flax and optax


INPUTS = jax.random.normal(jax.random.key(0), (24, 3))
TARGETS = jnp.sin(INPUTS[:, 0])


def squared(found, batch):
    return 0.5 * (found[:, 0] - batch[1]) ** 2


def subject_of(loss_fn, outputs, params):
    problem = Problem(loss_fn, params, (INPUTS, TARGETS))
    looks = {"outputs": project_outputs(jax.random.key(1), outputs, params, problem.data, 8), **norms(problem)}
    return Subject(problem, concepts={"size": size_of}, observations=looks)


def size_of(params):
    return optax.tree.norm(params)


def trained_by_linen(steps):
    """A loop of a jitted step of optax, the recorder inside of it."""
    network = linen.Dense(1)
    variables = network.init(jax.random.key(2), INPUTS)
    loss_fn, params = slt_flax.from_linen(network, squared, variables)
    outputs, _ = slt_flax.from_linen(network, variables=variables)
    recorder, optimizer = recorder_of(subject_of(loss_fn, outputs, params), steps), optax.adam(1e-2)

    @jax.jit
    def train_step(recorder, recording, params, state, step):
        recording = recorder.record(recording, step, params)
        slope = jax.grad(lambda p: jnp.mean(loss_fn(p, (INPUTS, TARGETS))))(params)
        changes, state = optimizer.update(slope, state)
        return recording, optax.apply_updates(params, changes), state

    recording, state, path = recorder.init(), optimizer.init(params), []
    for step in range(10):
        path.append(params)
        recording, params, state = train_step(recorder, recording, params, state, step)
    return recorder, recorder.history(recording), path


def trained_by_nnx(steps):
    """A loop of nnx, as its users write it, which knows nothing of the recorder."""
    model = nnx.Linear(3, 1, rngs=nnx.Rngs(2))
    loss_fn, params = slt_flax.from_nnx(model, squared)
    outputs, _ = slt_flax.from_nnx(model)
    recorder = recorder_of(subject_of(loss_fn, outputs, params), [0])
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

    @nnx.jit
    def train_step(model, optimizer):
        slope = nnx.grad(lambda m: jnp.mean(squared(m(INPUTS), (INPUTS, TARGETS))))(model)
        optimizer.update(model, slope)

    history, path = None, []
    for step in range(10):
        path.append(slt_flax.from_nnx(model, squared)[1])
        if step in steps:
            history = recorder.look(history, step, path[-1])
        train_step(model, optimizer)
    return recorder, history, path


@pytest.mark.parametrize("train_by", [trained_by_linen, trained_by_nnx])
def test_a_flax_and_optax_loop_records_what_its_parameters_say_afterwards(train_by):
    steps = np.array([0, 1, 5, 9])
    recorder, history, path = train_by(steps)
    assert history.steps.tolist() == steps.tolist()
    assert sorted(history.observations) == ["gradient norm/full", "outputs", "weight norm/full"]
    rows = [measure_all(recorder, path[step]) for step in steps]
    np.testing.assert_allclose(history.losses["all"], [row.losses["all"] for row in rows], rtol=1e-5)
    np.testing.assert_allclose(history.concepts["size"], history.observations["weight norm/full"], rtol=1e-6)
    for name in ("outputs", "weight norm", "gradient norm"):
        for index, row in enumerate(rows):
            value = row.observations[name] if name == "outputs" else row.observations[name]["full"]
            seen = history.observations[name if name == "outputs" else f"{name}/full"][index]
            np.testing.assert_allclose(seen, value, rtol=1e-4, atol=1e-6)
    assert history.losses["all"][-1] < 0.99 * history.losses["all"][0]


def test_only_what_was_reached_is_in_the_history():
    recorder = recorder_of(SUBJECT, [2, 5, 70])
    recording = recorder.init()
    for step in range(8):
        recording = recorder.record(recording, step, START)
    assert recorder.history(recording).steps.tolist() == [2, 5]
    assert recorder.history(recorder.init()).steps.tolist() == []


def test_a_recorder_is_compiled_once_for_all_steps_and_data():
    traced = []

    def counted(params, batch):
        traced.append(1)
        return regression(params, batch)

    record = jax.jit(lambda recorder, recording, step: recorder.record(recording, step, START))
    recorders = [
        recorder_of(Subject(Problem(counted, START, data)), steps)
        for data, steps in ((DATA, [0, 3]), (2 * DATA, [1, 2]))
    ]
    # each was looked at once, without computing, to refuse a loss that breaks its contract
    traced.clear()
    for recorder in recorders:
        for step in range(4):
            record(recorder, recorder.init(), step)
    assert len(traced) == 1


@pytest.mark.parametrize("steps", [[], [3, 3], [3, 1], [[1, 2]], 5, [0.5, 1.5]])
def test_steps_that_do_not_increase_in_whole_numbers_are_refused(steps):
    with pytest.raises(ValueError, match=r"steps: got .* non-empty, increasing list of integers"):
        recorder_of(SUBJECT, steps)
    with pytest.raises(ValueError, match="steps: got"):
        Recorder(jnp.asarray(steps), {}, {}).init()


def test_a_history_without_the_steps_that_are_not_finite_keeps_the_others():
    curve = np.array([1.0, np.nan, 3.0, 4.0])
    concept = np.array([1.0, 2.0, np.inf, 4.0])
    history = finite(History(STEPS, {"all": curve}, {"c": concept}))
    assert history.steps.tolist() == [0, 9]
    assert history.losses["all"].tolist() == [1.0, 4.0]
    assert history.concepts["c"].tolist() == [1.0, 4.0]


def test_a_history_survives_the_disk(tmp_path):
    history = recorded_in_a_loop()
    assert storage.read_history(tmp_path) is None
    storage.write_history(tmp_path, history)
    assert_equal_histories(storage.read_history(tmp_path), history, rtol=0)
    bare = History(np.array([1, 2]), {"all": np.array([1.0, np.nan])}, {})
    storage.write_history(tmp_path, bare)
    assert_equal_histories(storage.read_history(tmp_path), bare, rtol=0)
    assert [entry.name for entry in tmp_path.iterdir()] == [storage.datasets.HISTORY]
