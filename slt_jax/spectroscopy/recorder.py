"""Records sublosses, concepts and observations of a network while it trains: in a jitted step, a scan, or beside it."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jax.typing import ArrayLike

from slt_jax import tree
from slt_jax.problem import Problem
from slt_jax.spectroscopy.observations import Observation, observation
from slt_jax.spectroscopy.subject import Subject, as_subject, check_subject, mean_loss, parts
from slt_jax.types import Array, PyTree, Scalar


class History(NamedTuple):
    """What was recorded, on the host.

    Attributes:
      steps: Shape ``(T,)``, increasing.
      losses: Mean losses in nats by name, each of shape ``(T,)``; ``"all"`` is the whole loss.
      concepts: Values by name, each of shape ``(T,)``.
      observations: Whatever else was recorded, each of shape ``(T, ...)``; what an observation returned as a dict is
        there under ``"observation/key"``.
    """

    steps: np.ndarray
    losses: dict[str, np.ndarray]
    concepts: dict[str, np.ndarray]
    observations: Mapping[str, np.ndarray] = {}


class Recording(NamedTuple):
    """A history being written: buffers of fixed shape ``(K,)`` that live on the device.

    Attributes:
      losses: By name.
      concepts: By name.
      written: Which of the ``K`` steps have been recorded.
      observations: By name, trees of arrays of shape ``(K, ...)``.
    """

    losses: dict[str, Array]
    concepts: dict[str, Array]
    written: Array
    observations: Mapping[str, PyTree] = {}


class Recorder(NamedTuple):
    """When to look, and at what; a tree, so that it can be an argument of a jitted training step.

    ``recording = init()``, then ``recording = record(recording, step, params)`` at every step, inside jit or scan:
    only at the chosen steps is anything computed. ``history(recording)`` at the end, on the host. Beside a loop that is
    not jitted, or that is somebody else's, ``history = look(history, step, params)`` whenever one likes.

    Attributes:
      steps: The steps at which to look, increasing, shape ``(K,)``.
      losses: Functions of the parameters by name, each giving a mean loss.
      concepts: Functions of the parameters by name, each giving one number.
      observations: What else is recorded, by name.

    >>> recorder = Recorder(jnp.arange(0, 10, 5), {"all": Partial(lambda w: w**2)}, {})
    >>> recording = jax.lax.fori_loop(0, 10, lambda t, r: recorder.record(r, t, 1.0 * t), recorder.init())
    >>> recorder.history(recording).losses["all"].tolist()
    [0.0, 25.0]
    """

    steps: Array
    losses: Mapping[str, Callable[[PyTree], Array]]
    concepts: Mapping[str, Callable[[PyTree], Array]]
    observations: Mapping[str, Observation] = {}

    def init(self) -> Recording:
        """Empty buffers.

        Raises:
          ValueError: the steps are empty, do not increase or are not whole numbers.
        """
        check_steps(self.steps)
        empty = jnp.full(self.steps.shape, jnp.nan, jnp.float32)
        return Recording(
            {name: empty for name in self.losses},
            {name: empty for name in self.concepts},
            jnp.zeros(self.steps.shape, bool),
            {name: jax.tree.map(self._rows, one.missing) for name, one in self.observations.items()},
        )

    def record(self, recording: Recording, step: Scalar, params: PyTree) -> Recording:
        """The recording after this step: measured and written where ``step`` is one of ``steps``, else unchanged."""
        index = jnp.clip(jnp.searchsorted(self.steps, step), 0, self.steps.shape[0] - 1)

        def write(recording: Recording) -> Recording:
            def put(buffer: Array, value: Array) -> Array:
                return buffer.at[index].set(jnp.asarray(value, buffer.dtype))

            measured = measure_all(self, params)
            return Recording(
                jax.tree.map(put, recording.losses, measured.losses),
                jax.tree.map(put, recording.concepts, measured.concepts),
                recording.written.at[index].set(True),
                jax.tree.map(put, recording.observations, measured.observations),
            )

        return jax.lax.cond(self.steps[index] == step, write, lambda unchanged: unchanged, recording)

    def history(self, recording: Recording) -> History:
        """The recorded part, as arrays on the host."""
        written = np.asarray(recording.written)
        tables = recording.losses, recording.concepts, _by_path(recording.observations)
        kept = ({name: np.asarray(values)[written] for name, values in table.items()} for table in tables)
        return History(np.asarray(self.steps)[written], *kept)

    def look(self, history: History | None, step: int, params: PyTree) -> History:
        """The history with this step added: a plain call on the host, at any step, whether among ``steps`` or not.

        Args:
          history: So far, of this recorder; ``None`` at the beginning.
          step: Later than all that are in the history.
          params: The parameters there.

        Raises:
          ValueError: the step is not later, or the history is of other losses, concepts or observations.

        >>> recorder = Recorder(jnp.arange(1), {"all": Partial(lambda w: w**2)}, {})
        >>> history = recorder.look(recorder.look(None, 3, 1.0), 7, 2.0)
        >>> history.steps.tolist(), history.losses["all"].tolist()
        ([3, 7], [1.0, 4.0])
        """
        row = row_of(self, step, params)
        return row if history is None else joined([history, row])

    def _rows(self, missing: Array) -> Array:
        return jnp.broadcast_to(missing, (*self.steps.shape, *jnp.shape(missing)))


class Measured(NamedTuple):
    """What a recorder sees at one moment: losses and concepts of shape ``()``, observations of any shape, by name."""

    losses: dict[str, Array]
    concepts: dict[str, Array]
    observations: dict[str, PyTree]


def measure_all(recorder: Recorder, params: PyTree) -> Measured:
    """All losses, concepts and observations of a recorder at ``params``."""
    return Measured(
        {name: function(params) for name, function in recorder.losses.items()},
        {name: function(params) for name, function in recorder.concepts.items()},
        {name: one.function(params) for name, one in recorder.observations.items()},
    )


def measure(recorder: Recorder, params: PyTree) -> tuple[dict[str, Array], dict[str, Array]]:
    """All losses and all concepts of a recorder at ``params``: two dicts of numbers of shape ``()``."""
    measured = measure_all(recorder, params)
    return measured.losses, measured.concepts


#: The recorder is an argument: one compilation for all steps of a loop, and for all data of one shape.
_measured = jax.jit(measure_all)


def row_of(recorder: Recorder, step: int, params: PyTree) -> History:
    """A history of this one step."""
    losses, concepts, observations = _measured(recorder, params)
    tables = losses, concepts, _by_path(observations)
    return History(np.array([step]), *({name: np.asarray(value)[None] for name, value in t.items()} for t in tables))


def joined(rows: Sequence[History]) -> History:
    """Histories of the same losses, concepts and observations, one after the other.

    Raises:
      ValueError: there is none, the steps do not increase, or what was recorded differs.

    >>> [row] = [History(np.array([2]), {"all": np.array([0.5])}, {})]
    >>> joined([row, row._replace(steps=np.array([3]))]).losses["all"].tolist()
    [0.5, 0.5]
    """
    if not rows:
        raise ValueError("rows: got none; pass at least one history.")
    steps = np.concatenate([row.steps for row in rows])
    if (np.diff(steps) <= 0).any():
        late = int(np.flatnonzero(np.diff(steps) <= 0)[0])
        raise ValueError(
            f"step: got {steps[late + 1]} after {steps[late]}; steps must increase. Look at each once, in order."
        )
    tables: list[dict[str, np.ndarray]] = []
    for field in History._fields[1:]:
        names = list(getattr(rows[0], field))
        for row in rows[1:]:
            if set(getattr(row, field)) != set(names):
                raise ValueError(
                    f"history: its {field} are {sorted(names)}, those of step {row.steps[0]} "
                    f"{sorted(getattr(row, field))}; go on with the recorder that it was begun with."
                )
        tables.append({name: np.concatenate([getattr(row, field)[name] for row in rows]) for name in names})
    return History(steps, *tables)


def recorder_of(subject: Subject | Problem, steps: ArrayLike) -> Recorder:
    """A recorder of everything that a subject names.

    Args:
      subject: A Problem, or more. Its whole loss is recorded as ``"all"``, beside its sublosses, its concepts and its
        observations.
      steps: Steps at which to look, increasing.

    Raises:
      ValueError: ``steps`` is empty or does not increase; a loss, a concept or an observation breaks its contract.
    """
    check_steps(steps)
    subject = as_subject(subject)
    check_subject(subject)
    losses = {
        name: Partial(
            mean_loss, part.loss_fn if isinstance(part.loss_fn, Partial) else Partial(part.loss_fn), data=part.data
        )
        for name, part in parts(subject).items()
    }
    concepts = {name: Partial(concept) for name, concept in subject.concepts.items()}
    observations = {name: _named(name, one, subject.problem.params) for name, one in subject.observations.items()}
    return Recorder(jnp.asarray(steps, jnp.int32), losses, concepts, observations)


def _named(name: str, function: Callable[[PyTree], PyTree], params: PyTree) -> Observation:
    try:
        return observation(function, params)
    except ValueError as error:
        raise ValueError(f"observation {name!r}: {error}") from error


def finite(history: History) -> History:
    """The history without the steps at which any loss or concept is NaN or infinite."""
    curves = [*history.losses.values(), *history.concepts.values()]
    kept = np.all([np.ones(len(history.steps), bool), *(np.isfinite(curve) for curve in curves)], axis=0)
    return History(
        history.steps[kept], *({name: curve[kept] for name, curve in table.items()} for table in history[1:])
    )


def check_steps(steps: ArrayLike) -> None:
    """Refuse steps that cannot be recorded at; does nothing where they are traced.

    Raises:
      ValueError: they are empty, do not increase or are not whole numbers.
    """
    if isinstance(steps, jax.core.Tracer):
        return
    found = np.asarray(steps)
    whole = np.issubdtype(found.dtype, np.integer)
    if found.ndim != 1 or not found.size or not whole or (np.diff(found) <= 0).any():
        raise ValueError(f"steps: got {found.tolist()}; they must be a non-empty, increasing list of integers.")


def _by_path(observations: Mapping[str, PyTree]) -> dict[str, Array]:
    """Arrays by ``"name"``, and ``"name/key"`` where an observation is a tree of several."""
    return {
        "/".join(part for part in (name, tree.path_name(path)) if part): leaf
        for name, one in observations.items()
        for path, leaf in jax.tree_util.tree_leaves_with_path(one)
    }
