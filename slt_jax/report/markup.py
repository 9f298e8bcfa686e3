"""Pieces of HTML: every word is escaped here, every number is written here."""

import base64
import html
import math
from collections.abc import Sequence
from typing import NamedTuple


class Html(NamedTuple):
    """Text that is HTML already; everything else is escaped where it is set."""

    text: str


def escaped(value: object) -> str:
    """The HTML of a value: as it is where it is ``Html``, else escaped, with characters no page may hold replaced."""
    if isinstance(value, Html):
        return value.text
    return html.escape(
        "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in str(value))
    )


def element(tag: str, *children: object, **attributes: object) -> Html:
    """``<tag attributes>children</tag>``; an attribute ``class_`` is written ``class``."""
    written = "".join(f' {name.rstrip("_")}="{escaped(value)}"' for name, value in attributes.items())
    return Html(f"<{tag}{written}>{''.join(escaped(child) for child in children)}</{tag}>")


def joined(*children: object) -> Html:
    """Pieces one after the other."""
    return Html("\n".join(escaped(child) for child in children if child is not None))


def section(name: str, title: str, *children: object) -> Html:
    """A section that the list of contents can point at."""
    return element("section", element("h2", title), joined(*children), id=name)


def figure(svg: str, alternative: str, caption: object) -> Html:
    """A picture inside the page: a data URI needs no second file, and nothing inside it can run."""
    data = base64.b64encode(svg.encode()).decode()
    image = f'<img src="data:image/svg+xml;base64,{data}" alt="{escaped(alternative)}">'
    return figure_of(Html(image), caption)


def figure_of(picture: Html, caption: object) -> Html:
    """A picture that is HTML already, such as one whose parts are links, with its caption."""
    return element("figure", picture, element("figcaption", caption))


def table(
    header: Sequence[object], rows: Sequence[Sequence[object]], *, text: Sequence[int] = (0,), caption: object = None
) -> Html:
    """A table; the columns ``text`` are words and set to the left, all others are numbers.

    Args:
      header: Names of the columns.
      rows: Cells, as many in each row as in the header.
      text: Indices of the columns of words.
      caption: Said above the table, or ``None``.

    Returns:
      The table, in a box that scrolls where the window is narrow.
    """

    def line(cells: Sequence[object], tag: str) -> Html:
        kinds = ["words" if index in text else "number" for index in range(len(cells))]
        return element("tr", *(element(tag, cell, class_=kind) for cell, kind in zip(cells, kinds, strict=True)))

    body = element("tbody", *(line(row, "td") for row in rows))
    head = element("thead", line(header, "th"))
    top = [] if caption is None else [element("caption", caption)]
    return element("div", element("table", *top, head, body), class_="scroll")


def folded(summary: object, *children: object, open_: bool = False) -> Html:
    """Something that opens on a click, without a script."""
    return Html(
        f"<details{' open' if open_ else ''}><summary>{escaped(summary)}</summary>{joined(*children).text}</details>"
    )


def badge(text: str, kind: str) -> Html:
    """A verdict: ``kind`` is ``good``, ``bad`` or ``none``."""
    return element("span", text, class_=f"badge {kind}")


def plain(value: float, digits: int = 4) -> str:
    """A number with so many significant digits, and a minus that is as wide as a plus."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == int(value) and abs(value) < 1e5:
        return f"{value:.0f}".replace("-", "−")
    mantissa, _, power = f"{value:.{digits}g}".partition("e")
    text = f"{mantissa} × 10{_raised(int(power))}" if power else mantissa
    return text.replace("-", "−")


def with_error(value: float, error: float, sign: bool = False) -> str:
    """A value and its standard error, both to the second digit of the error."""
    if not (math.isfinite(value) and math.isfinite(error) and error > 0 and max(abs(value), error) < 1e6):
        return f"{plain(value)} ± {plain(error, 2)}"
    decimals = min(max(0, 1 - math.floor(math.log10(error))), 10)
    return f"{value:{'+' if sign else ''}.{decimals}f} ± {error:.{decimals}f}".replace("-", "−")


def change(value: float, scale: float) -> str:
    """A change with its sign, to a thousandth of ``scale``."""
    if not math.isfinite(value):
        return plain(value)
    decimals = min(max(0, 3 - math.ceil(math.log10(scale))), 8) if 0 < scale < math.inf else 3
    text = f"{value:+.{decimals}f}"
    return "0" if float(text) == 0 else text.replace("-", "−")


def counted(count: int, singular: str, plural: str | None = None) -> str:
    """``1 reading``, ``2 readings``, ``no readings``."""
    return f"{count or 'no'} {singular if count == 1 else plural or singular + 's'}"


def _raised(power: int) -> str:
    return str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
