"""Keeps checkpoints beside a training loop: at log-spaced steps and around events, within a budget of disk."""

import json
import operator
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from slt_jax import tree
from slt_jax.spectroscopy import keeping
from slt_jax.spectroscopy.keeping import Curves, Rule
from slt_jax.storage.checkpoints import (
    find_checkpoints,
    load_checkpoint,
    remove_checkpoint,
    remove_leftovers,
    save_checkpoints,
)
from slt_jax.types import PyTree

#: What was offered, a line for each point of the curves: from it a keeper goes on after a kill.
OFFERS = "offers.jsonl"
#: A file takes whole blocks of the disk.
_BLOCK = 4096


class Keeper:
    """Decides at every offer whether a checkpoint is worth its disk, writes it, and thins the others where it must.

    A checkpoint is kept at the first offer of every stretch of ``log10(1 + step)``, of which there are ``per_decade``,
    or ``per_decade_in_events`` while some curve changes fast, by the rule of ``keeping.add``. Where the budget would be
    exceeded, those go first whose neighbours are closest in log step, those near an event last; the first and the
    newest stay. What is decided depends on what was offered alone: a training that was killed and goes on from any
    earlier step, with a new keeper of the same folder, ends with the same checkpoints; offers that were answered before
    the kill are passed over.

    Checkpoints are Orbax's, each written under a hidden name and renamed when it is whole. Offer parameters, or a whole
    training state in which they are called ``params``: ``slt-jax scan`` finds them.

    Attributes:
      folder: Where the checkpoints are.
      steps: Steps of the checkpoints that are kept now, increasing.
      events: Steps at which a curve changed fast.

    Not to be believed as a record of all that happened: what falls between two offers is not seen. Offer as often as
    the losses are looked at; an offer that is not kept costs microseconds, and the wait for its losses.

    >>> import tempfile, jax.numpy as jnp
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     keeper = Keeper(folder, budget=10**6, per_decade=2)
    ...     kept = [step for step in range(40) if keeper.offer(step, {"w": jnp.zeros(3)}, {"all": 1.0 / (1 + step)})]
    ...     kept, Keeper(folder, budget=10**6).latest({"w": jnp.zeros(3)})[0]
    ([0, 3, 9, 31], 31)
    """

    def __init__(
        self,
        folder: Path | str,
        budget: int,
        *,
        per_decade: int = Rule().per_decade,
        per_decade_in_events: int = Rule().per_decade_in_events,
        speed: float = Rule().speed,
    ) -> None:
        """Begin, or go on.

        Args:
          folder: Made where it does not exist. One keeper at a time.
          budget: Bytes that all checkpoints together may take on the disk.
          per_decade: Checkpoints for each factor of 10 of the step.
          per_decade_in_events: The same while a curve changes fast.
          speed: How many times its usual speed is fast.

        Raises:
          ValueError: a number out of range; the folder is a file, or holds checkpoints that no keeper wrote, which it
            might remove.
        """
        self.folder, self._rule = Path(folder), Rule(per_decade, per_decade_in_events, speed)
        keeping.check_rule(self._rule)
        if budget < 1:
            raise ValueError(f"budget: got {budget}; it is a number of bytes.")
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"folder: {self.folder} is a file; choose another.")
        self._budget = int(budget)
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.folder)
        self._curves, self._kept_last = Curves([], {}, {}), None
        self.events: list[int] = []
        self._answered: int | None = None
        self._offered: int | None = None
        self._sizes = {step: _size(path) for step, path in find_checkpoints(self.folder).items()}
        log = self.folder / OFFERS
        if self._sizes and not log.exists():
            raise ValueError(
                f"folder: {self.folder} holds checkpoints that no keeper wrote, and might remove; choose another."
            )
        log.touch()
        for line in _lines(log):
            self._note(line)

    @property
    def steps(self) -> list[int]:
        """Steps of the checkpoints that are kept now, increasing."""
        return sorted(self._sizes)

    def offer(self, step: int, params: PyTree, losses: Mapping[str, Any] = {}, *, keep: bool = False) -> bool:
        """Keep a checkpoint of this step, or not.

        Args:
          step: Larger than at the offer before.
          params: The tree that would be written.
          losses: Curves by name, one number each, the same names at every offer; they say where the events are.
          keep: Keep it in any case, such as the last.

        Returns:
          Whether there is a checkpoint of this step now.

        Raises:
          ValueError: the step is no larger than the one before, negative or no whole number; other losses than before;
            one checkpoint is larger than the budget; a leaf is a typed key.
        """
        step = _whole(step)
        if step < 0 or (self._offered is not None and step <= self._offered):
            before = "it is counted from 0" if self._offered is None else f"the one before was {self._offered}"
            raise ValueError(f"step: got {step}; {before}. Offer steps in increasing order, each once.")
        keeping.check_losses(losses, self._curves.values if self._curves.places else None)
        self._offered = step
        if self._answered is not None:
            if step <= self._answered:
                return step in self._sizes
            if not keep and keeping.place(step) - self._curves.places[-1] < keeping.WINDOW / keeping.POINTS:
                return False
        values = {name: float(value) for name, value in losses.items()}
        event = keeping.add(self._curves, step, values, self._rule)
        kept = keep or keeping.is_due(step, self._kept_last, event, self._rule)
        if kept:
            self._write(step, params)
        line = {"step": step, "losses": values, "event": event, "kept": kept}
        with (self.folder / OFFERS).open("a") as log:
            log.write(json.dumps(line) + "\n")
        self._remember(line)
        return kept

    def latest(self, template: PyTree) -> tuple[int, PyTree] | None:
        """The newest checkpoint, as ``(step, tree)`` in the structure of ``template``, or ``None`` where there is none.

        Raises:
          CheckpointError: it is of another tree.
        """
        found = find_checkpoints(self.folder)
        return (max(found), load_checkpoint(found[max(found)], template)) if found else None

    def _write(self, step: int, params: PyTree) -> None:
        _check_leaves(params)
        least = sum(leaf.nbytes for leaf in jax.tree.leaves(params) if hasattr(leaf, "nbytes"))
        if step not in self._sizes:
            self._check_budget(least)
            self._thin(self._budget - max([least, *self._sizes.values()]))
            save_checkpoints(self.folder, {step: params})
            size = _size(self.folder / str(step))
            if size > self._budget:
                remove_checkpoint(self.folder / str(step))
            self._check_budget(size)
            self._sizes[step] = size
        self._thin(self._budget)

    def _check_budget(self, size: int) -> None:
        if size > self._budget:
            raise ValueError(
                f"budget: got {self._budget} bytes, and one checkpoint takes {size}; make room for several."
            )

    def _thin(self, budget: int) -> None:
        """Remove the least useful until the others fit; the newest always stays."""
        while sum(self._sizes.values()) > budget and len(self._sizes) > 1:
            steps = self.steps
            spare = keeping.least_useful(steps, self.events, self._rule)
            gone = steps[0] if spare is None else spare
            remove_checkpoint(self.folder / str(gone))
            del self._sizes[gone]

    def _note(self, line: Mapping[str, Any]) -> None:
        keeping.add(self._curves, line["step"], line["losses"], self._rule)
        self._remember(line)

    def _remember(self, line: Mapping[str, Any]) -> None:
        self._answered = line["step"]
        if line["event"]:
            self.events.append(line["step"])
        if line["kept"]:
            self._kept_last = line["step"]


def _whole(step: Any) -> int:
    try:
        return operator.index(step)
    except TypeError as error:
        raise ValueError(f"step: got {step!r}; it is a whole number.") from error


def _check_leaves(params: PyTree) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if jax.dtypes.issubdtype(getattr(leaf, "dtype", None), jax.dtypes.prng_key):
            raise ValueError(
                f"params: leaf {tree.path_name(path)!r} is a typed key, which Orbax does not write; offer "
                "jax.random.key_data of it."
            )


def _size(path: Path) -> int:
    """Bytes that a checkpoint takes on the disk, in whole blocks."""
    files = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
    return sum(-(-file.stat().st_size // _BLOCK) * _BLOCK for file in files)


def _lines(log: Path) -> list[dict[str, Any]]:
    """The lines of a log, the last of which may be cut short by a kill: it then was never answered.

    Raises:
      ValueError: another line is no offer.
    """
    if not log.exists():
        return []
    whole, separator, rest = log.read_text().rpartition("\n")
    if rest:
        # what is cut short goes, so that the next line begins a line
        scratch = log.with_name(f".{OFFERS}")
        scratch.write_text(whole + separator)
        os.replace(scratch, log)
    found = []
    for number, text in enumerate(whole.splitlines(), start=1):
        try:
            line = json.loads(text)
            found.append({name: line[name] for name in ("step", "losses", "event", "kept")})
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{log}, line {number}: is no offer ({error}); restore it, or begin elsewhere.") from error
    return found
