"""What tests of the pipeline judge files by: a campaign, its rules, and short ways to ask."""

import csv
import io
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipeline.ruleset import Ruleset
from pipeline.validate import Outcome, validate
from postern.model import Campaign, Channel, Environment, IdKind, Language, new_id
from postern.sms.template import Frame, check_templates

NOW = datetime(2026, 11, 20, 8, 30, tzinfo=UTC)
TEMPLATES = {Language.ENGLISH: "Dear {{name}}, about {{topic}}.", Language.CHINESE: "{{name}}：{{topic}}"}
FRAME = Frame(header="Ministry", footers=dict.fromkeys(Language, "Bye."))
HEADER = "recipient,language,name,topic\n"
GOOD = "6591234567,english,Emily,tea\n"


def a_campaign(templates: Mapping[Language, str] = TEMPLATES) -> Campaign:
    """A campaign that is in no ledger yet."""
    return Campaign(
        id=new_id(IdKind.CAMPAIGN),
        name="Tea time",
        agency="Ministry",
        channel=Channel.PUBLIC,
        templates=templates,
        parameters=check_templates(templates),
        rate=20,
        created_at=NOW,
        template_id=new_id(IdKind.TEMPLATE),
        template_body_ids={language: new_id(IdKind.TEMPLATE_BODY) for language in templates},
    )


def ruleset(
    templates: Mapping[Language, str] = TEMPLATES,
    *,
    frame: Frame = FRAME,
    environment: Environment = Environment.PRODUCTION,
) -> Ruleset:
    """The rules of a campaign with these templates."""
    return Ruleset(
        parameters=tuple(check_templates(templates)), templates=templates, frame=frame, environment=environment
    )


@dataclass(frozen=True)
class Judged:
    """What became of a file."""

    outcome: Outcome
    report: str | None  # without its byte order mark
    messages: Path

    @property
    def codes(self) -> list[tuple[int | None, str | None, str]]:
        """Row, column and code of every error, of which there are ten at most."""
        assert self.outcome.verdict.num_errors <= 10
        return [(found.row, found.column, found.code) for found in self.outcome.verdict.first_errors]

    @property
    def warnings(self) -> list[tuple[int | None, str | None, str]]:
        """Row, column and code of every warning."""
        return [(found.row, found.column, found.code) for found in self.outcome.verdict.first_warnings]

    @property
    def sentences(self) -> list[str]:
        """What is told of every error."""
        return [found.sentence for found in self.outcome.verdict.first_errors]


class Judge:
    """Judges files in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, content: str | bytes, rules: Ruleset | None = None) -> Judged:
        """Judge a file; text is encoded in UTF-8."""
        report, messages = self._folder / "report.csv", self._folder / "messages"
        report.unlink(missing_ok=True)
        shutil.rmtree(messages, ignore_errors=True)
        data = content.encode() if isinstance(content, str) else content
        outcome = validate(data, rules or ruleset(), report=report, messages=messages)
        text = report.read_bytes().removeprefix(b"\xef\xbb\xbf").decode() if report.exists() else None
        return Judged(outcome=outcome, report=text, messages=messages)


def csv_text(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a CSV file."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def rows_of(text: str) -> list[list[str]]:
    """The rows of a CSV file, blank lines as empty rows."""
    return list(csv.reader(io.StringIO(text, newline=""), strict=True))
