"""What probes of many temperatures saw, in pictures and numbers: flows of λ, and the spectrogram of training."""

import numpy as np

from slt_jax import plots
from slt_jax.report.content import Content, Row
from slt_jax.report.markup import Html, badge, counted, element, figure, folded, joined, plain, table, with_error

#: More parts than this have no picture of their own.
_MOST_PARTS = 4
#: Checkpoints whose numbers are told beside a picture.
_MOST_TOLD = 24
_FLOW_ARRAYS = ("nbetas", "lambda_eff", "lambda_eff_error", "plateau", "ok")
_DOS_ARRAYS = ("log_epsilon", "conductance")


def flows(content: Content, probe: str) -> Html | None:
    """λ_eff against temperature, a picture per part and a table of the first; ``None`` without such arrays."""
    parts = _parts(content, probe, _FLOW_ARRAYS)
    pieces: list[object] = []
    for what, rows in list(parts.items())[:_MOST_PARTS]:
        lines = [_line(row) for row in rows]
        drawn = [lines[index] for index in plots.kept_lines(len(lines))]
        cut = f" {len(drawn)} of {len(lines)} checkpoints are drawn." if len(drawn) < len(lines) else ""
        alternative = f"λ_eff against inverse temperature, {what}: {'; '.join(_flow_told(line) for line in drawn)}."
        caption = (
            f"λ_eff = nβ E[K], {what}, a line per checkpoint: hot on the left, where only steep directions are seen, "
            "cold on the right. Bands are ± 2 standard errors. Thick stretches are plateaus, where λ_eff changes by "
            "less than 2 % for each factor of e in temperature, or by less than two of its errors: there it is the λ "
            f"of a scale. Red and hollow: too hot for γ, or unhealthy.{cut}"
        )
        pieces.append(figure(plots.flow_curves(drawn, what), alternative, caption))
        if not any(isinstance(piece, Html) and "<details" in piece.text for piece in pieces):
            pieces.append(folded(f"Every temperature, {what}", _rungs(rows)))
    return joined(*pieces, _left_out(parts)) if pieces else None


def spectrograms(content: Content, probe: str) -> Html | None:
    """Conductance by depth and checkpoint, a picture per part; ``None`` without such arrays."""
    parts = _parts(content, probe, _DOS_ARRAYS)
    pieces: list[object] = []
    for what, rows in list(parts.items())[:_MOST_PARTS]:
        told = "; ".join(_spectrum_told(row) for row in rows[:_MOST_TOLD])
        alternative = f"Conductance d log V / d log ε by checkpoint and ε, {what}: {told}."
        caption = (
            f"The spectrogram of {what}: how fast the volume of parameters whose loss is within ε of the centre's "
            "shrinks with ε, at every checkpoint. The conductance tends to λ at the bottom, where ε is small; a change "
            "of colour on the way is a scale at which other directions begin to matter. Grey: not reached, or above "
            "all that was met."
        )
        pieces.append(figure(plots.spectrogram([_spectrum(row) for row in rows], what), alternative, caption))
    return joined(*pieces, _left_out(parts)) if pieces else None


def _parts(content: Content, probe: str, needed: tuple[str, ...]) -> dict[str, list[Row]]:
    """Rows that have the arrays, by part, the whole loss in the whole network first."""
    rows = [row for row in content.rows if row.probe == probe and row.measured and set(needed) <= set(row.arrays)]
    parts: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (not row.whole, row.step)):
        parts.setdefault(row.what, []).append(row)
    return parts


def _left_out(parts: dict[str, list[Row]]) -> Html | None:
    left = len(parts) - _MOST_PARTS
    return element("p", f"{counted(left, 'part')} more in readings.zarr.", class_="muted") if left > 0 else None


def _line(row: Row) -> plots.FlowLine:
    there = np.isfinite(row.arrays["nbetas"])
    nbetas, values, errors, stays, ok = (row.arrays[name][there] for name in _FLOW_ARRAYS)
    return plots.FlowLine(row.step, nbetas, values, errors, stays, ok.astype(bool))


def _flow_told(line: plots.FlowLine) -> str:
    """A line in words: its plateaus, or its ends."""
    cold, hot = int(np.argmax(line.nbetas)), int(np.argmin(line.nbetas))
    stays = list(dict.fromkeys(line.plateaus[np.isfinite(line.plateaus)].tolist()))
    where = f", plateaus at {', '.join(plain(level, 3) for level in stays)}" if stays else ", no plateau"
    wrong = int((~line.ok).sum())
    faults = f", {counted(wrong, 'temperature')} not to be relied on" if wrong else ""
    return (
        f"step {line.step}, {plain(float(line.values[hot]), 3)} at nβ {plain(float(line.nbetas[hot]), 3)} to "
        f"{plain(float(line.values[cold]), 3)} at {plain(float(line.nbetas[cold]), 3)}{where}{faults}"
    )


def _rungs(rows: list[Row]) -> Html:
    lines = []
    for row in rows:
        for rung in np.flatnonzero(np.isfinite(row.arrays["nbetas"])):
            usable = bool(row.arrays.get("usable", row.arrays["ok"])[rung])
            good = bool(row.arrays["ok"][rung])
            verdict = badge("healthy", "good") if good else badge("unhealthy" if usable else "too hot", "bad")
            numbers = ("lambda_eff", "heat_capacity", "velocity", "contact_sum")
            lines.append(
                [
                    plain(row.step),
                    plain(float(row.arrays["nbetas"][rung]), 3),
                    *(_number(row, name, int(rung)) for name in numbers),
                    verdict,
                ]
            )
    header = ["step", "nβ", "λ_eff", "heat capacity", "velocity", "Σ contact exponents", "verdict"]
    return table(header, lines, text=(6,))


def _number(row: Row, name: str, rung: int) -> str:
    if name not in row.arrays or f"{name}_error" not in row.arrays:
        return ""
    return with_error(float(row.arrays[name][rung]), float(row.arrays[f"{name}_error"][rung]))


def _spectrum(row: Row) -> plots.Spectrum:
    return plots.Spectrum(
        row.step, row.arrays["log_epsilon"], row.arrays["conductance"], row.value, row.std_error, row.healthy
    )


def _spectrum_told(row: Row) -> str:
    m = row.extra.get("multiplicity", 0.0)
    order = f"m = {m:.0f}" if m > 0 else "m unresolved"
    verdict = "" if row.healthy else " (unhealthy)"
    return f"step {row.step}, λ {with_error(row.value, row.std_error)}, {order}{verdict}"
