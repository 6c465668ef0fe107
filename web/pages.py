"""The plain pages that people meet behind a link: a title, sentences, perhaps facts, buttons and a link.

No script, nothing from elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<meta name="referrer" content="no-referrer">
{reload}<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --page: #f3f5f7; --card: #fff; --line: #e1e5ea; --ink: #1f2933; --soft: #56616d;
  --link: #a8281e; --button: #1f5c99; }}
@media (prefers-color-scheme: dark) {{ :root {{ --page: #12161b; --card: #1c2229; --line: #333c46; --ink: #e8ecf0;
  --soft: #a9b4bf; --link: #a8c7fa; }} }}
body {{ margin: 0; padding: 32px 12px; background: var(--page); color: var(--ink);
  font: 16px/25px -apple-system, BlinkMacSystemFont, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }}
main {{ max-width: 548px; margin: 0 auto; padding: 28px 36px 32px; background: var(--card);
  border: 1px solid var(--line); border-radius: 10px; }}
h1 {{ margin: 0 0 12px; font-size: 24px; line-height: 32px; font-weight: 600; }}
p {{ margin: 0 0 4px; color: var(--soft); }}
p.link {{ margin-top: 18px; }}
p.mark {{ display: inline-block; margin: 0 0 10px; padding: 0 8px; border: 1px solid var(--soft); border-radius: 4px;
  font-size: 12px; line-height: 20px; font-weight: 600; letter-spacing: 0.5px; }}
a {{ color: var(--link); }}
dl {{ display: grid; grid-template-columns: max-content 1fr; margin: 18px 0 0; border-top: 1px solid var(--line); }}
dt, dd {{ margin: 0; padding: 6px 16px 6px 0; border-bottom: 1px solid var(--line); font-size: 14px; }}
dt {{ color: var(--soft); }}
dd {{ padding-right: 0; overflow-wrap: anywhere; }}
form {{ display: inline-block; margin: 22px 10px 0 0; }}
button {{ padding: 11px 22px; border: 1px solid var(--button); border-radius: 6px; background: var(--button);
  color: #fff; font: inherit; font-weight: 600; cursor: pointer; }}
button.plain {{ background: transparent; border-color: var(--soft); color: var(--ink); }}
@media (max-width: 520px) {{ main {{ padding: 24px 20px; }} }}
</style>
</head>
<body>
<main>
{mark}<h1>{title}</h1>
{content}
</main>
</body>
</html>
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Button:
    """A button that posts."""

    words: str
    action: str  # where to
    is_plain: bool = False  # the less likely choice


def page(
    *,
    title: str,
    sentences: Sequence[str],
    facts: Sequence[tuple[str, str]] = (),
    buttons: Sequence[Button] = (),
    link: tuple[str, str] | None = None,
    reload: int | None = None,
    mark: str | None = None,
) -> str:
    """A page.

    Args:
        title: its heading.
        sentences: a paragraph each.
        facts: names and values, in a table.
        buttons: what can be done.
        link: its words, and where it goes.
        reload: seconds after which the browser asks again.
        mark: what sets it apart from the real thing, in a word.
    """
    content = [f"<p>{escape(sentence)}</p>" for sentence in sentences]
    if facts:
        pairs = (f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts)
        content += ["<dl>", *pairs, "</dl>"]
    content += [_form(button) for button in buttons]
    if link is not None:
        content.append(f'<p class="link"><a href="{escape(link[1])}">{escape(link[0])}</a></p>')
    return _PAGE.format(
        title=escape(title),
        content="\n".join(content),
        reload=f'<meta http-equiv="refresh" content="{reload}">\n' if reload else "",
        mark=f'<p class="mark">{escape(mark)}</p>\n' if mark else "",
    )


def _form(button: Button) -> str:
    style = ' class="plain"' if button.is_plain else ""
    return (
        f'<form method="post" action="{escape(button.action)}">'
        f'<button type="submit"{style}>{escape(button.words)}</button></form>'
    )
