"""Reports as one page of HTML that needs nothing else: no network, no script, no other file."""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING

from ...engine.runtime import build_info
from ..shown import shown
from . import pictures
from .sections import found_text

if TYPE_CHECKING:
    from .data import Data
    from .sections import Section
    from .weights import Weights

#: Below this width panels stand one above the other.
_NARROW = "(max-width: 44rem)"

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1d1d1f; --quiet: #f4f4f6; --line: #d8d8dc; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #17181a; --ink: #e8e8ea; --quiet: #222326; --line: #3a3b40; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin-top: 2.5rem; padding-top: 1rem; border-top: 1px solid var(--line); font-size: 1.2rem; }
p { max-width: 44rem; }
pre { overflow-x: auto; padding: 0.75rem; border-radius: 0.4rem; background: var(--quiet);
  font: 0.8rem/1.45 ui-monospace, monospace; }
img { display: block; width: 100%; height: auto; border-radius: 0.4rem; background: #fff;
  padding: 0.6rem; }
img.single { max-width: 44rem; }
footer { margin-top: 2.5rem; font-size: 0.85rem; opacity: 0.75; }
"""


def page(weights: Weights, data: Data | None, sections: list[Section]) -> str:
    """Return the page."""
    title = escape(f"Gradients through {shown(weights.file)}")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8" />
<meta name="viewport" content="width=device-width, initial-scale=1" />
<meta name="color-scheme" content="light dark" />
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{title}</h1>
<main>
<pre>{escape(found_text(weights, data))}</pre>
{"".join(_section(section) for section in sections)}</main>
<footer>rnnbptt {escape(build_info()["version"])}</footer>
</body>
</html>
"""


def _section(section: Section) -> str:
    table, words = str(section.report).rsplit("\n\n", 1)
    words = escape(" ".join(words.split()))
    wide, narrow = (_uri(pictures.svg(section, wide)) for wide in (True, False))
    single = ' class="single"' if section.axes == 1 else ""
    return f"""<section>
<h2>{escape(section.title)}</h2>
<p>{words}</p>
<picture>
<source media="{_NARROW}" srcset="{narrow}" />
<img{single} src="{wide}" alt="{escape(section.title)}. {words}" />
</picture>
<pre>{escape(table)}</pre>
</section>
"""


def _uri(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
