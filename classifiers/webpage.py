"""Pages that need nothing beside them: one style, tables, pictures in the page itself."""

import base64
import html
from collections.abc import Sequence

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.45 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto; max-width: 1180px;
  padding: 1rem 1.5rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; } h2 { font-size: 1.25rem; margin: 2.2rem 0 .4rem;
  border-top: 2px solid #ddd; padding-top: 1rem; } h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
.warning { background: #fff4d6; border-left: 4px solid #b58900; padding: .5rem .8rem; }
table { border-collapse: collapse; margin: .4rem 0 .8rem; font-variant-numeric: tabular-nums; font-size: .86rem; }
th, td { text-align: left; padding: .18rem .8rem .18rem 0; border-bottom: 1px solid #eee; vertical-align: top; }
thead th { border-bottom: 1px solid #999; }
.plots { display: flex; flex-wrap: wrap; gap: .6rem; } .plots img { max-width: 100%; border: 1px solid #eee; }
img.wide { max-width: 100%; } .note { color: #555; font-size: .86rem; } nav a { margin-right: 1rem; }
.scroll { overflow-x: auto; }
"""


def html_document(title: str, body: str) -> str:
    """Return a page; `title` is text, `body` is HTML."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body>{body}</body></html>\n"
    )


def html_table(head: Sequence[str] | None, rows: Sequence[Sequence[str]]) -> str:
    """Return a table; cells are text."""
    top = f"<thead><tr>{''.join(f'<th>{html.escape(cell)}</th>' for cell in head)}</tr></thead>" if head else ""
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table>{top}<tbody>{body}</tbody></table></div>'


def svg_image(svg: str, alternative: str) -> str:
    """Return an SVG document as an image of the page, with what is read where it can't be seen."""
    data = base64.b64encode(svg.encode()).decode()
    return f'<img alt="{html.escape(alternative)}" src="data:image/svg+xml;base64,{data}">'
