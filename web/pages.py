"""The plain pages that people meet behind a link: a title, sentences, a link. No script, nothing from elsewhere."""

from collections.abc import Sequence
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
  --link: #a8281e; }}
@media (prefers-color-scheme: dark) {{ :root {{ --page: #12161b; --card: #1c2229; --line: #333c46; --ink: #e8ecf0;
  --soft: #a9b4bf; --link: #a8c7fa; }} }}
body {{ margin: 0; padding: 32px 12px; background: var(--page); color: var(--ink);
  font: 16px/25px -apple-system, BlinkMacSystemFont, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }}
main {{ max-width: 548px; margin: 0 auto; padding: 28px 36px 32px; background: var(--card);
  border: 1px solid var(--line); border-radius: 10px; }}
h1 {{ margin: 0 0 12px; font-size: 24px; line-height: 32px; font-weight: 600; }}
p {{ margin: 0 0 4px; color: var(--soft); }}
p.link {{ margin-top: 18px; }}
a {{ color: var(--link); }}
@media (max-width: 520px) {{ main {{ padding: 24px 20px; }} }}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
{sentences}
<p class="link"><a href="{address}">{words}</a></p>
</main>
</body>
</html>
"""


def page(*, title: str, sentences: Sequence[str], link: tuple[str, str], reload: int | None = None) -> str:
    """A page.

    Args:
        title: its heading.
        sentences: a paragraph each.
        link: its words, and where it goes.
        reload: seconds after which the browser asks again.
    """
    return _PAGE.format(
        title=escape(title),
        sentences="\n".join(f"<p>{escape(sentence)}</p>" for sentence in sentences),
        words=escape(link[0]),
        address=escape(link[1]),
        reload=f'<meta http-equiv="refresh" content="{reload}">\n' if reload else "",
    )
