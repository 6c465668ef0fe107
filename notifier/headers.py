"""Headers of a mail that other programs read: on one line each, and meaning what they say."""

from email.header import Header
from email.headerregistry import BaseHeader, HeaderRegistry, MessageIDHeader, UniqueUnstructuredHeader
from email.policy import Policy
from functools import cache
from typing import Any, cast

from typing_extensions import override

LONGEST_PLAIN_SUBJECT = 200  # characters; a longer one is folded, which takes encoded words


@cache
def headers() -> HeaderRegistry:
    """The library's headers, but for those where it is wrong."""
    registry = HeaderRegistry()
    # The registry makes a BaseHeader of each.
    registry.map_to_type("message-id", cast("type[BaseHeader]", _WholeMessageId))
    registry.map_to_type("in-reply-to", cast("type[BaseHeader]", _WholeReference))
    registry.map_to_type("references", cast("type[BaseHeader]", _WholeReference))
    registry.map_to_type("subject", cast("type[BaseHeader]", _LiteralSubject))
    return registry


class _WholeMessageId(MessageIDHeader):
    # The library would fold after "Message-ID:", as the id alone is longer than its 78 columns. RFC 5322, 2.1.1
    # allows 998, and programs that compare ids (our own repeats are told by them) do not all unfold.
    def fold(self, *, policy: "Policy[Any]") -> str:
        return f"Message-ID: {self}{policy.linesep}"


class _WholeReference(UniqueUnstructuredHeader):
    # One id on one line, for the same reason.
    def fold(self, *, policy: "Policy[Any]") -> str:
        return f"{cast('BaseHeader', self).name}: {self}{policy.linesep}"


class _LiteralSubject(UniqueUnstructuredHeader):
    # The library would decode a file name that looks like an encoded word (RFC 2047), line breaks in it included, and
    # may fold before the first word. Here the text means itself, and the outcome stands on the header's first line.
    @classmethod
    @override
    def parse(cls, value: str, kwds: dict[str, Any]) -> None:
        super().parse(value, kwds)
        kwds["decoded"] = value

    def fold(self, *, policy: "Policy[Any]") -> str:
        text = str(self)
        if not text.isascii() or "=?" in text or len(text) > LONGEST_PLAIN_SUBJECT:
            text = Header(text, "utf-8", header_name="Subject").encode(linesep=policy.linesep)
        return f"Subject: {text}{policy.linesep}"
