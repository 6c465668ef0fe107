"""What `postern message retry` and `postern batch retry` share: advice, and the question about a second delivery."""

import sys
from collections.abc import Mapping
from typing import Annotated

import typer

from postern.cli.output import console, errors
from postern.model import ErrorCode
from postern.sms.retrying import ADVICE

Yes = Annotated[
    bool, typer.Option("--yes", help="Retry what nobody knows the end of, too; it may be delivered a second time.")
]


def agrees(count: int, *, yes: bool, as_json: bool) -> bool:
    """Whether second deliveries may be: by `--yes`, or by an answer where there is a terminal to ask on."""
    if yes or not count:
        return yes
    doubt = (
        f"Nobody knows whether {count:,} of these were delivered: the failure is our own conclusion. "
        "A retry may deliver them a second time."
    )
    return insists(doubt, as_json=as_json)


def insists(doubt: str, *, as_json: bool) -> bool:
    """Whether somebody at the terminal wants a retry in spite of this; where there is none to ask on, nobody does."""
    if as_json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    errors.print(f"[yellow]![/] {doubt}")
    return typer.confirm("Retry all the same?", err=True)


def print_advice(by_code: Mapping[ErrorCode, int]) -> None:
    """Which of these failures a retry may help, and why."""
    for code, count in sorted(by_code.items(), key=lambda pair: (-pair[1], pair[0])):
        worth, why = ADVICE[code]
        console.print(f"  {count:,} {code.value}: worth retrying: {worth.value}. {why}")


def advice_json(by_code: Mapping[ErrorCode, int]) -> list[dict[str, object]]:
    """The same as JSON."""
    return [
        {"errorCode": code.value, "errorType": code.type.value, "count": count, "worthRetrying": ADVICE[code][0].value}
        for code, count in sorted(by_code.items(), key=lambda pair: (-pair[1], pair[0]))
    ]
