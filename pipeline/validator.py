"""Validation in a process of its own (`pipeline.watched`): a file that kills it fails alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.ruleset import Ruleset, to_json
from pipeline.watched import WatchedProcess
from postern.model import Finding, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Validated:
    """The answer of the validating process."""

    verdict: Verdict
    first_row: int
    last_row: int
    fits_workbook: bool  # the report can be a workbook, too; see `pipeline.sheet`


class Validator:
    """Runs one validation at a time in its process; safe to call from several threads, which then wait."""

    def __init__(self, *, timeout: float, memory: int) -> None:
        """Set the limits for one file: seconds, and MiB of resident memory."""
        self._process = WatchedProcess("pipeline.child", name="validating", timeout=timeout, memory=memory)

    def warm_up(self) -> None:
        """Start the process before it is needed."""
        self._process.warm_up()

    def validate(self, data: Path, rules: Ruleset, *, report: Path, messages: Path) -> Validated:
        """Judge a file; see `pipeline.validate.validate`.

        Raises:
            ProcessFailedError: the process died, took too long or too much memory, or met a bug.
        """
        answer = self._process.ask(
            {"data": str(data), "report": str(report), "messages": str(messages), "rules": to_json(rules)}
        )
        return Validated(
            verdict=_verdict(answer["verdict"]),
            first_row=answer["firstRow"],
            last_row=answer["lastRow"],
            fits_workbook=answer["fitsWorkbook"],
        )

    def close(self) -> None:
        """End the process."""
        self._process.close()


def _verdict(document: dict[str, Any]) -> Verdict:
    return Verdict(
        is_valid=document["isValid"],
        total_rows=document["totalRows"],
        num_rows=document["numRows"],
        num_errors=document["numErrors"],
        has_avoidable_character=document["fileHasAvoidableExpensiveCharacter"],
        has_unicode=document["fileHasUnicode"],
        by_code=document["byCode"],
        first_errors=[Finding(**finding) for finding in document["firstErrors"]],
        warnings=document["warnings"],
        first_warnings=[Finding(**finding) for finding in document["firstWarnings"]],
        rows_by_language=document["rowsByLanguage"],
        segments=document["segments"],
        local_segments=document["localSegments"],
        foreign_segments=document["foreignSegments"],
    )
