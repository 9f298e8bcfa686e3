"""A study: a network that can be trained, and everything about it that is worth measuring."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from slt_jax.spectroscopy import History, Probe, Recorder, Recording, Subject, fingerprint
from slt_jax.truths.truth import Truth
from slt_jax.types import Array, Key, PyTree

#: Called with the number of steps done and the number of all steps.
Progress = Callable[[int, int], None]


class Study(NamedTuple):
    """A training run that can be repeated from its key, and what is measured on it.

    Attributes:
      name: One word.
      title: One line.
      summary: A paragraph for the report.
      subject: Losses, concepts and restrictions.
      init: ``init(key) -> state`` of training.
      update: ``update(state, step) -> state``: one training step, pure.
      params_of: ``params_of(state) -> params``.
      record_at: Steps at which losses and concepts are recorded, increasing.
      keep_at: Steps of which a checkpoint is kept, increasing.
      probes: What is measured at a checkpoint.
      restrictions: Which free directions are measured.
      sublosses: Which parts of the loss are measured.
      whole_probes: What is measured besides, on the whole loss in the whole network only.
      rankings: Families of concepts and sublosses, as ``("prefix matching", "first time")``: by theory heads are in the
        same order by the concepts ``"prefix matching 1.0"``, ... and by how they respond to that subloss.
      budget: The most checkpoints to measure at first.
      more: The most checkpoints to add where neighbouring readings disagree; where it is not 0, three times the budget
        are kept besides to choose from.
      exact: ``exact(params) -> Truth`` for the whole loss at a plateau, or ``None`` for parameters of which nothing
        exact is known; ``None`` instead of a function where nothing ever is.
      expected_order: Groups of concepts in the order in which theory says they are learned, or ``()``.
      complete: Whether the data are all that there is, so that losses have no sampling error.
    """

    name: str
    title: str
    summary: str
    subject: Subject
    init: Callable[[Key], PyTree]
    update: Callable[[PyTree, Array], PyTree]
    params_of: Callable[[PyTree], PyTree]
    record_at: np.ndarray
    keep_at: np.ndarray
    probes: Mapping[str, Probe]
    restrictions: tuple[str, ...] = ("full",)
    sublosses: tuple[str, ...] = ("all",)
    budget: int = 16
    exact: Callable[[PyTree], Truth | None] | None = None
    expected_order: tuple[tuple[str, ...], ...] = ()
    whole_probes: Mapping[str, Probe] = {}
    rankings: tuple[tuple[str, str], ...] = ()
    more: int = 0
    complete: bool = False


def train(
    key: Key, study: Study, recorder: Recorder, keep: Callable[[int, PyTree], None], progress: Progress
) -> History:
    """Train the study's network, record its history and hand over the parameters at the steps to keep.

    Args:
      key: A typed key, the only source of randomness.
      study: What to train.
      recorder: What to record.
      keep: Called with the step and the parameters, on the host.
      progress: Called after each stretch of training.

    Returns:
      The history.
    """
    state, recording = study.init(key), recorder.init()
    # what an update closes over rides as an argument, not as a constant of the compiled program
    update, params_of = (f if isinstance(f, Partial) else Partial(f) for f in (study.update, study.params_of))
    total, begin = int(study.keep_at[-1]), 0
    for step in study.keep_at.tolist():
        # bounds are arguments: every stretch, however long, runs the same compiled loop
        state, recording = _stretch(update, params_of, recorder, state, recording, begin, step)
        keep(step, study.params_of(state))
        progress(step, total)
        begin = step
    recording = jax.jit(recorder.record)(recording, begin, study.params_of(state))
    return recorder.history(recording)


def training_mark(study: Study) -> str:
    """A digest of how a study trains: its first step, which holds all of its settings, and when it is looked at."""

    def begin(key: Key) -> PyTree:
        return study.params_of(study.update(study.init(key), jnp.asarray(0)))

    program = fingerprint.of_function(begin, jax.random.key(0))
    return fingerprint.of_text(
        program, fingerprint.of_tree([study.record_at, study.keep_at]), study.budget, study.more > 0
    )


def log_steps(total: int, count: int) -> np.ndarray:
    """About ``count`` steps from 0 to ``total``, even in the logarithm, each once.

    >>> log_steps(100, 6).tolist()
    [0, 1, 3, 10, 32, 100]
    """
    spaced = np.round(np.geomspace(1, total, count - 1)).astype(int)
    return np.unique(np.concatenate([[0], spaced]))


def _stretch_body(
    update: Callable,
    params_of: Callable,
    recorder: Recorder,
    state: PyTree,
    recording: Recording,
    begin: Array,
    end: Array,
) -> tuple[PyTree, Recording]:
    def advance(step: Array, carry: tuple[PyTree, Recording]) -> tuple[PyTree, Recording]:
        state, recording = carry
        recording = recorder.record(recording, step, params_of(state))
        return update(state, step), recording

    return jax.lax.fori_loop(jnp.asarray(begin), jnp.asarray(end), advance, (state, recording))


_stretch = jax.jit(_stretch_body)
