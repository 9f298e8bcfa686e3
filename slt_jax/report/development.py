"""What training did: the picture of losses and concepts, the order of learning, and what each phase brought."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from slt_jax import plots
from slt_jax.plots.training import MOST_CURVES, MOST_ROWS
from slt_jax.report import alignment
from slt_jax.report.content import Content
from slt_jax.report.markup import Html, badge, change, counted, element, figure, joined, plain, table, with_error
from slt_jax.spectroscopy.subject import WHOLE_LOSS

#: More losses than this have no column each in the table of phases.
_MOST_COLUMNS = 7
#: Falls of more than this share of all that a loss fell are marked.
_LARGE = 0.2


def training(content: Content) -> Html:
    """Losses and concepts against the step, phases shaded."""
    history = content.history
    if history is None or not len(history.steps):
        return element("p", "No history was recorded: there are no losses to show.", class_="muted")
    acquired = _acquired_steps(content)
    order = sorted(history.concepts, key=lambda name: (name not in acquired, acquired.get(name, 0)))
    concepts = {name: history.concepts[name] for name in order}
    picture = plots.training(history.steps, history.losses, concepts, acquired, content.bands, content.axis, WHOLE_LOSS)
    count = len(content.bands.transitions)
    said = f"{counted(count, 'phase')} found." if "phases" in content.study else "Too few steps to look for phases."
    shading = " Darker stretches are the transitions, where the losses change fastest in the logarithm of the step."
    if content.bands.intervals:
        shading += " The grey feet are the 95 % intervals of their fastest steps."
    shown = f" The first {MOST_ROWS} concepts are drawn." if len(concepts) > MOST_ROWS else ""
    if len(history.losses) > MOST_CURVES + MOST_ROWS:
        shown += f" The first {MOST_ROWS} sublosses are drawn."
    last = {name: curve[-1] for name, curve in history.losses.items()}
    ends = f"the whole loss ends at {plain(float(last[WHOLE_LOSS]), 3)} nats" if WHOLE_LOSS in last else ""
    alternative = (
        f"Losses in nats against training step on a logarithmic axis, {counted(len(history.losses), 'curve')}, "
        f"{counted(count, 'phase')}, {counted(len(concepts), 'concept')}; {ends}."
    )
    return joined(
        element("p", said + (shading if count else "") + shown), figure(picture, alternative, _legend(content))
    )


def learned(content: Content) -> Html | None:
    """Which concept was acquired when, beside theory and against chance; ``None`` without concepts."""
    if not content.study.get("alignment"):
        return None
    return joined(_acquired(content), alignment.against_chance(content))


def _acquired(content: Content) -> Html:
    """Acquisitions in their order, beside the order that theory expects."""
    acquisitions = content.study["alignment"]
    header = ["", "concept", "acquired at step", "phase", "from its transition"]
    rows = [
        [
            index + 1,
            row["concept"],
            _when(row),
            plain(row["phase"]) if row["phase"] is not None else "",
            alignment.lag(row["lag"]) if row["lag"] is not None else "",
        ]
        for index, row in enumerate(acquisitions)
    ]
    measured = element("div", element("h3", "Measured"), table(header, rows, text=(1,)))
    groups = [list(group) for group in content.study.get("expected_order") or ()]
    if not groups:
        return measured
    verdicts = agreement(groups, {row["concept"]: row["step"] for row in acquisitions})
    marks = [badge("✓ agrees", "good") if agrees else badge("✗ differs", "bad") for agrees in verdicts]
    expected = [
        [index + 1, ", ".join(group), mark] for index, (group, mark) in enumerate(zip(groups, marks, strict=True))
    ]
    caption = "A group agrees when all of it was acquired, none of it before an earlier group or after a later one."
    theory = element(
        "div",
        element("h3", "Expected by theory"),
        table(["", "group of concepts", "measured order"], expected, text=(1, 2)),
        element("p", caption, class_="muted"),
    )
    said = f"{sum(verdicts)} of {counted(len(groups), 'group')} were learned in the expected place."
    return joined(element("p", said), element("div", measured, theory, class_="pair"))


def agreement(groups: Sequence[Sequence[str]], steps: Mapping[str, int | None]) -> list[bool]:
    """Whether each group was acquired in its place.

    Args:
      groups: Names in the expected order.
      steps: Step of acquisition by name; ``None`` or absent where there is none.

    Returns:
      One truth value per group.
    """
    found = [[steps.get(name) for name in group] for group in groups]
    known = [[step for step in group if step is not None] for group in found]
    verdicts = []
    for index, group in enumerate(known):
        before = [step for other in known[:index] for step in other]
        after = [step for other in known[index + 1 :] for step in other]
        whole = bool(group) and len(group) == len(found[index])
        verdicts.append(
            whole and max(before, default=-np.inf) <= min(group) and max(group) <= min(after, default=np.inf)
        )
    return verdicts


def construction(content: Content) -> Html | None:
    """What each phase brought, with the changes of the coefficient and of the losses; ``None`` without phases."""
    records = content.study.get("construction")
    if not records:
        return None
    sentences = str(content.study.get("construction_text", "")).split("\n")
    names = _columns(content, records)
    scales = {name: max(abs(record["loss_changes"].get(name, 0.0)) for record in records) for name in names}
    rows = []
    for index, record in enumerate(records):
        after = record.get("reading_change")
        rows.append(
            [
                sentences[index] if index < len(sentences) else f"Phase {record['phase']}",
                with_error(float(after[0]), float(after[1]), sign=True) if after else "",
                *(_fall(record["loss_changes"].get(name), scales[name]) for name in names),
            ]
        )
    titles = ["whole loss" if name == WHOLE_LOSS else name for name in names]
    note = f" Of {len(records[-1]['loss_changes'])} losses, those that changed most." if _cut(records) else ""
    caption = f"Changes from plateau to plateau: Δλ̂ with its standard error, losses in nats.{note}"
    return table(["what the phase brought", "Δλ̂", *(f"Δ {title}" for title in titles)], rows, caption=caption)


def _columns(content: Content, records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The losses to show: all in their recorded order, or those that changed most."""
    changed = {name for record in records for name in record["loss_changes"]}
    recorded = [] if content.history is None else list(content.history.losses)
    names = sorted(changed, key=lambda name: (recorded.index(name) if name in recorded else len(recorded), name))
    if len(names) <= _MOST_COLUMNS:
        return names
    extent = {name: max(abs(record["loss_changes"].get(name, 0.0)) for record in records) for name in names}
    most = sorted(names, key=lambda name: (name != WHOLE_LOSS, -extent[name]))[:_MOST_COLUMNS]
    return [name for name in names if name in most]


def _cut(records: Sequence[Mapping[str, Any]]) -> bool:
    return len({name for record in records for name in record["loss_changes"]}) > _MOST_COLUMNS


def _fall(value: float | None, scale: float) -> object:
    if value is None:
        return ""
    text = change(value, scale)
    return element("span", text, class_="fall") if value < 0 and abs(value) > _LARGE * scale else text


def _acquired_steps(content: Content) -> dict[str, int]:
    rows = content.study.get("alignment") or ()
    return {row["concept"]: row["step"] for row in rows if row["step"] is not None}


def _when(row: Mapping[str, Any]) -> object:
    return plain(row["step"]) if row["step"] is not None else badge(str(row["status"]), "none")


def _legend(content: Content) -> str:
    text = "Losses are means per example, on a linear axis."
    if content.history is not None and content.history.concepts:
        text += " Concepts are measured apart from the training loss; each row goes from 0 to 1."
    return text
