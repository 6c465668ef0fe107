"""Campaign files: what an operator writes, in JSON or YAML, to create a campaign."""

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from postern.errors import Refusal
from postern.model import Campaign, Channel, IdKind, Language, new_id
from postern.sms.template import check_templates

DEFAULT_RATE = {Channel.PUBLIC: 20.0, Channel.INTERNAL: 10.0}  # messages a second


class CampaignFile(BaseModel):
    """The fields of a campaign file."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    name: str = Field(min_length=1, max_length=200)
    agency: str = Field(min_length=1, max_length=100)
    channel: Channel = Channel.PUBLIC
    templates: dict[Language, str]
    rate: float | None = Field(default=None, gt=0, le=10_000)

    @field_validator("name", "agency", mode="after")
    @classmethod
    def _one_line(cls, value: str) -> str:
        if re.search(r"[\x00-\x1f\x7f-\x9f]", value):
            raise ValueError("write it on one line, without tabs and control characters")
        return value


def read_campaign(path: Path, now: datetime) -> Campaign:
    """A new campaign from a file, with fresh ids.

    Raises:
        Refusal: the file cannot be read or breaks a rule; says what and where.
    """
    try:
        document = _parse(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise Refusal("file_unreadable", f"{path} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Refusal("file_malformed", f"{path} is neither JSON nor YAML: {error}") from None
    try:
        fields = CampaignFile.model_validate(document)
    except ValidationError as error:
        raise Refusal("campaign_invalid", _explain(path, error)) from None
    return new_campaign(fields, now)


def _parse(text: str) -> Any:
    try:
        return json.loads(text)  # not all JSON is YAML: tabs, and characters beyond U+FFFF written as two escapes
    except ValueError:
        return yaml.safe_load(text)


def new_campaign(fields: CampaignFile, now: datetime) -> Campaign:
    """A new campaign, with fresh ids.

    Raises:
        Refusal: a template breaks a rule.
    """
    return Campaign(
        id=new_id(IdKind.CAMPAIGN),
        name=fields.name,
        agency=fields.agency,
        channel=fields.channel,
        templates=fields.templates,
        parameters=check_templates(fields.templates),
        rate=fields.rate or DEFAULT_RATE[fields.channel],
        created_at=now,
        template_id=new_id(IdKind.TEMPLATE),
        template_body_ids={language: new_id(IdKind.TEMPLATE_BODY) for language in fields.templates},
    )


def _explain(path: Path, error: ValidationError) -> str:
    lines = [f"{path} is no campaign file:"]
    lines += [
        f"  {'.'.join(str(part) for part in item['loc']) or 'file'}: {item['msg'].removeprefix('Value error, ')}"
        for item in error.errors()
    ]
    return "\n".join(lines)
