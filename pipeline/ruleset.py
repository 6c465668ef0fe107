"""What a file is judged by: the campaign's templates and the service's settings, as plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from postern.model import Campaign, Environment, Language
from postern.settings import WorkerSettings
from postern.sms.frame import frame_for
from postern.sms.template import Frame

TEST_ROWS = 20  # data rows that a file may have in the test environment


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruleset:
    """Everything that validation needs to know besides the bytes."""

    parameters: Sequence[str]
    templates: Mapping[Language, str]
    frame: Frame
    environment: Environment

    @property
    def most_rows(self) -> int | None:
        """The number of data rows that a file may have, None for no limit."""
        return TEST_ROWS if self.environment is Environment.TEST else None


def ruleset_for(campaign: Campaign, settings: WorkerSettings) -> Ruleset:
    """The rules for a campaign's files."""
    return Ruleset(
        parameters=tuple(campaign.parameters),
        templates=dict(campaign.templates),
        frame=frame_for(campaign, settings),
        environment=settings.environment,
    )


def to_json(rules: Ruleset) -> dict[str, Any]:
    """For the pipe to the validating process."""
    return {
        "parameters": list(rules.parameters),
        "templates": {language.value: body for language, body in rules.templates.items()},
        "header": rules.frame.header,
        "footers": {language.value: footer for language, footer in rules.frame.footers.items()},
        "environment": rules.environment.value,
    }


def from_json(document: Mapping[str, Any]) -> Ruleset:
    """What `to_json` wrote."""
    return Ruleset(
        parameters=tuple(document["parameters"]),
        templates={Language(name): body for name, body in document["templates"].items()},
        frame=Frame(
            header=document["header"],
            footers={Language(name): footer for name, footer in document["footers"].items()},
        ),
        environment=Environment(document["environment"]),
    )
