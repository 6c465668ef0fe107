"""The templates of the mails, and how they write numbers."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from postern.model import NoticeKind


def fill(kind: NoticeKind, name: str, view: Mapping[str, Any]) -> str:
    """One template of a kind of mail, with all that it may name."""
    return _templates().get_template(f"{kind}/{name}").render(view)


def title_of(code: str) -> str:
    """What a code of the CSV contract is called in a table."""
    # A template of its own and not a macro: what a macro returns counts as safe HTML, and a code need not be.
    return _templates().get_template("shared/title.txt").render(code=code).strip()


def counted(count: int, noun: str) -> str:
    """`1 row`, `1,200 rows`."""
    return f"{number(count)} {noun}{'' if count == 1 else 's'}"


def number(value: int) -> str:
    """`1,234,567`."""
    return f"{value:,}"


def size_in_words(size: int) -> str:
    """`512 bytes`, `1.5 MB (1,500,000 bytes)`; in powers of ten, as the limit is."""
    for unit, factor in (("MB", 1_000_000), ("kB", 1000)):
        if size >= factor:
            return f"{size / factor:.1f} {unit} ({number(size)} bytes)"
    return counted(size, "byte")


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("notifier"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters.update(number=number, counted=counted)
    return templates
