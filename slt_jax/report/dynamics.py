"""What was observed beside losses and concepts: the essential dynamics of the outputs, and norms."""

import numpy as np

from slt_jax import plots
from slt_jax.report.content import Content, phases_between
from slt_jax.report.markup import Html, counted, element, figure, joined, plain, table
from slt_jax.spectroscopy import EssentialDynamics, random_walk_shares
from slt_jax.spectroscopy.dynamics import dynamics_of
from slt_jax.spectroscopy.recorder import finite
from slt_jax.spectroscopy.subject import WHOLE_NETWORK

#: Families of norms that are drawn, with the title of their panel.
_NORMS = {"weight norm": "norm of the weights", "gradient norm": "norm of the gradient (nats per unit of weight)"}


def dynamics(content: Content) -> Html | None:
    """The path of the outputs over training and the norms; ``None`` where neither was recorded."""
    pieces = [piece for piece in (_path(content), _norms(content)) if piece is not None]
    return joined(*pieces) if pieces else None


def _path(content: Content) -> Html | None:
    found = None if content.history is None else dynamics_of(content.history)
    if found is None:
        return None
    header = ["component", "share of the variance", "of a random walk", "likeness to a random walk"]
    walk = random_walk_shares(len(found.shares))
    rows = [
        [number + 1, _share(found.shares[number], found.share_errors[number]), _share(walk[number]), f"{cosine:.2f}"]
        for number, cosine in enumerate(found.cosines)
    ]
    caption = (
        "A random walk in many dimensions has components too, smooth ones: cosines, with the shares beside. Likeness "
        "is the correlation with them, from 0 to 1. Smoothness alone is no structure; what counts are sharp turns at "
        "steps that other readings name."
    )
    return joined(
        element(
            "p",
            "Where the outputs of the network on fixed inputs went, along the directions in which they moved most: "
            "their principal components over time, every stretch of log step counted alike.",
        ),
        _picture(content, found),
        table(header, rows, caption=caption),
        _turns(content),
    )


def _turns(content: Content) -> Html | None:
    """Where the path turns sharply, and in which transition."""
    found = content.study.get("cusps") or []
    if not found:
        return None
    rows = [
        [
            plain(round(turn["step"])),
            f"{plain(round(turn['low']))} to {plain(round(turn['high']))}",
            f"{turn['turn']:.0f}°",
            f"{100 * turn['slowness']:.0f} %",
            phases_between(content.bands, turn["low"], turn["high"]),
        ]
        for turn in found
    ]
    caption = (
        "Where the path, smoothed, turns by 60° or more: the angle between the way in and the way out, and its speed "
        "per log step as a share of the greatest. The interval holds the turn with 95 %."
    )
    header = ["sharp turn at step", "interval", "angle", "speed", "in the transition of"]
    return table(header, rows, text=(4,), caption=caption)


def _picture(content: Content, found: EssentialDynamics) -> Html | None:
    if len(found.shares) < 2:
        return None
    bands = content.bands
    picture = plots.dynamics(found.steps, found.scores, found.score_errors, found.shares, bands, content.axis)
    told = ", ".join(f"component {k + 1} {100 * share:.1f} %" for k, share in enumerate(found.shares))
    places = "; ".join(
        f"{k} at step {plain(step)}: " + ", ".join(plain(float(value), 2) for value in found.scores[_at(found, step)])
        for k, step in enumerate(bands.transitions, start=1)
    )
    alternative = f"Path of the outputs over training in the planes of its principal components: {told}. {places}"
    caption = (
        "Colour is the step, on a logarithmic scale; rings mark the transitions, with bars of ± 2 standard errors from "
        f"the choice of the random directions. Below, the same against the step, {counted(len(found.steps), 'step')}."
    )
    return figure(picture, alternative, caption)


def _norms(content: Content) -> Html | None:
    if content.history is None:
        return None
    history = finite(content.history)
    families = {
        title: {
            key.partition("/")[2]: curve
            for key, curve in history.observations.items()
            if key.startswith(f"{family}/") and np.ndim(curve) == 1
        }
        for family, title in _NORMS.items()
    }
    families = {title: curves for title, curves in families.items() if curves}
    if not families or len(history.steps) < 2:
        return None
    picture = plots.norms(history.steps, families, content.bands, content.axis, WHOLE_NETWORK)
    ends = "; ".join(
        f"{title} of {name} from {plain(float(curve[0]), 3)} to {plain(float(curve[-1]), 3)}"
        for title, curves in families.items()
        for name, curve in curves.items()
    )
    return joined(
        element("h3", "Norms"), figure(picture, f"Norms against training step: {ends}.", "Both axes are logarithmic.")
    )


def _at(found: EssentialDynamics, step: float) -> int:
    return int(np.abs(found.steps - step).argmin())


def _share(value: float, error: float | None = None) -> str:
    return f"{100 * value:.1f} %" if error is None else f"{100 * value:.1f} ± {100 * error:.1f} %"
