"""The page around the sections: its head, its style, its list of contents."""

from collections.abc import Sequence

from slt_jax.report.markup import Html, element, escaped, joined

_STYLE = """
:root { --ink: #1f2430; --muted: #5b6472; --line: #e2e5ea; --soft: #f6f7f9; --accent: #2f6fae; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink); -webkit-print-color-adjust: exact; print-color-adjust: exact;
  font: 16px/1.55 "Helvetica Neue", Arial, "Liberation Sans", sans-serif; }
main { max-width: 1104px; margin: 0 auto; padding: 40px 24px 80px; }
h1 { font-size: 31px; line-height: 1.2; letter-spacing: -.01em; margin: 0 0 14px; max-width: 30em; }
h2 { font-size: 21px; margin: 0 0 12px; padding-top: 20px; border-top: 1px solid var(--line); }
h3 { font-size: 16px; margin: 28px 0 8px; } h4 { font-size: 14.5px; margin: 18px 0 6px; }
:target { background: #fff3cd; }
section { margin-top: 44px; }
p { margin: 0 0 12px; max-width: 46em; }
a { color: var(--accent); }
.lead { font-size: 18px; color: #3a4250; }
.verdict { border-left: 4px solid #2a9d8f; background: var(--soft); padding: 12px 18px; margin: 20px 0; }
.verdict.bad { border-color: #c1121f; }
.verdict p { margin: 0; max-width: none; } .verdict ul { margin: 8px 0 0; padding-left: 20px; font-size: 14.5px; }
.verdict li { margin: 4px 0; }
nav { font-size: 14.5px; color: var(--muted); } nav a { color: var(--accent); text-decoration: none; margin-right: 18px;
  white-space: nowrap; }
figure { margin: 18px 0 26px; break-inside: avoid; } figure img { display: block; width: 100%; height: auto; }
figcaption { color: var(--muted); font-size: 14px; line-height: 1.5; margin-top: 6px; max-width: 62em; }
.scroll { overflow-x: auto; margin: 10px 0 18px; }
table { border-collapse: collapse; font-size: 14.5px; line-height: 1.4; min-width: 60%; }
caption { text-align: left; color: var(--muted); font-size: 14px; padding: 0 0 8px; }
th { color: var(--muted); font-weight: 600; font-size: 13px; border-bottom: 1.5px solid #c3c8d0;
  vertical-align: bottom; }
th, td { padding: 6px 20px 6px 0; } th:last-child, td:last-child { padding-right: 6px; }
.words { min-width: 7em; } .words:first-child { min-width: 0; }
td { border-bottom: 1px solid var(--line); vertical-align: top; }
.words { text-align: left; } .number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.pair { display: flex; flex-wrap: wrap; gap: 8px 48px; align-items: flex-start; } .pair > div { flex: 1 1 440px; }
.pair table { width: 100%; }
.badge { font-size: 12.5px; font-weight: 600; padding: 1px 8px; border-radius: 9px; white-space: nowrap; }
.good { color: #0f5f55; background: #e0f3f0; } .bad { color: #9b0f19; background: #fbe6e7; }
.none { color: #4b5563; background: #eceef1; } .verdict.bad { background: #fdf5f5; color: inherit; }
.fall { background: #dbe9f6; border-radius: 3px; padding: 1px 4px; margin: 0 -4px; }
.muted { color: var(--muted); font-size: 14px; }
details { margin: 10px 0; } summary { cursor: pointer; color: var(--accent); }
td details { margin: 0; max-width: 34em; } td summary { list-style: none; } td summary::-webkit-details-marker {
  display: none; } td details p { font-size: 13px; color: var(--muted); margin: 4px 0 0; }
code { font: 13.5px/1.5 ui-monospace, Menlo, Consolas, "Liberation Mono", monospace; background: var(--soft);
  padding: 2px 6px; border-radius: 4px; overflow-wrap: anywhere; }
@media print { main { padding: 0; max-width: none; } body { font-size: 12px; } nav { display: none; }
  h2, h3 { break-after: avoid; } tr { break-inside: avoid; } }
"""
#: The page may show what it carries, and may ask for nothing.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(title: str, top: Html, sections: Sequence[tuple[str, str, Html]]) -> str:
    """A whole HTML document.

    Args:
      title: Of the window and the page.
      top: What stands above the sections.
      sections: ``(anchor, title, content)`` in their order.

    Returns:
      The text of the file.
    """
    contents = element("nav", *(element("a", name, href=f"#{anchor}") for anchor, name, _ in sections))
    body = element("main", element("h1", title), top, contents, joined(*(content for _, _, content in sections)))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body.text}\n</body>\n</html>\n"
    )
