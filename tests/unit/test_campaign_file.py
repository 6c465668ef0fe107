"""Campaign files: what an operator may write, and what is told when it is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
from unit.pipeline_fixtures import NOW

from postern.campaign_file import CampaignFile, new_campaign, read_campaign
from postern.errors import Refusal
from postern.model import Channel, IdKind, Language, is_id

CAMPAIGN = {"name": "Tea", "agency": "Ministry", "templates": {"english": "Dear {{name}}"}}
YAML = """
name: Tea
agency: Ministry
templates:
  english: |
    Dear {{name}},
    tea is ready.
  chinese: "{{name}}，茶好了 😀"
"""


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "campaign"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refusal_of(path: Path) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read_campaign(path, NOW)
    return caught.value


def test_a_campaign_is_read_from_yaml(tmp_path: Path) -> None:
    """Line breaks inside a body stay, those at its end do not."""
    campaign = read_campaign(write(tmp_path, YAML), NOW)
    assert campaign.templates == {
        Language.ENGLISH: "Dear {{name}},\ntea is ready.",
        Language.CHINESE: "{{name}}，茶好了 😀",
    }
    assert (campaign.name, campaign.agency, campaign.channel) == ("Tea", "Ministry", Channel.PUBLIC)
    assert (campaign.parameters, campaign.rate, campaign.created_at) == (["name"], 20, NOW)


@pytest.mark.parametrize("indent", [None, 2, "\t"])
@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_campaign_is_read_from_json(tmp_path: Path, indent: int | str | None, ascii_only: bool, mark: bytes) -> None:
    """However it is laid out and escaped, with or without a byte order mark."""
    document = {**CAMPAIGN, "templates": {"chinese": "{{name}} 😀 a/b"}}
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only)
    campaign = read_campaign(write(tmp_path, mark + text.encode()), NOW)
    assert campaign.templates == {Language.CHINESE: "{{name}} 😀 a/b"}


def test_a_campaign_has_ids_of_its_own(tmp_path: Path) -> None:
    """The same file twice makes two campaigns."""
    path = write(tmp_path, YAML)
    first, second = read_campaign(path, NOW), read_campaign(path, NOW)
    assert is_id(IdKind.CAMPAIGN, first.id)
    assert is_id(IdKind.TEMPLATE, first.template_id)
    assert all(is_id(IdKind.TEMPLATE_BODY, body_id) for body_id in first.template_body_ids.values())
    assert set(first.template_body_ids) == set(first.templates)
    assert {first.id, first.template_id, *first.template_body_ids.values()}.isdisjoint(
        {second.id, second.template_id, *second.template_body_ids.values()}
    )


@pytest.mark.parametrize(
    ("settings", "rate"),
    [({}, 20), ({"channel": "public"}, 20), ({"channel": "internal"}, 10), ({"channel": "internal", "rate": 0.5}, 0.5)],
)
def test_the_rate_follows_the_channel(settings: dict[str, Any], rate: float) -> None:
    """Unless it is given."""
    assert new_campaign(CampaignFile.model_validate({**CAMPAIGN, **settings}), NOW).rate == rate


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": ""}, "name: "),
        ({"name": "  "}, "name: "),
        ({"name": "x" * 201}, "name: "),
        ({"name": "Tea\nBcc: x"}, "name: write it on one line"),
        ({"name": None}, "name: "),
        ({"agency": "x" * 101}, "agency: "),
        ({"agency": "Min\0istry"}, "agency: write it on one line"),
        ({"channel": "secret"}, "channel: "),
        ({"rate": 0}, "rate: "),
        ({"rate": -1}, "rate: "),
        ({"rate": 10_001}, "rate: "),
        ({"rate": float("nan")}, "rate: "),
        ({"rate": "fast"}, "rate: "),
        ({"templates": {"klingon": "x"}}, "templates.klingon"),
        ({"templates": {"english": ["x"]}}, "templates.english: "),
        ({"templates": "x"}, "templates: "),
        ({"Name": "x"}, "Name: "),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    """With the file's name."""
    path = write(tmp_path, json.dumps({**CAMPAIGN, **change}))
    refusal = refusal_of(path)
    assert refusal.code == "campaign_invalid"
    assert str(refusal).startswith(f"{path} is no campaign file:\n  {told}")


def test_all_wrong_fields_are_named_at_once(tmp_path: Path) -> None:
    """One try tells everything."""
    told = str(refusal_of(write(tmp_path, "rate: -1\ntemplates: {english: hi}\nlanguage: english\n")))
    assert [line.strip().split(":")[0] for line in told.splitlines()[1:]] == ["name", "agency", "rate", "language"]


@pytest.mark.parametrize("content", ["", "- a\n- b\n", "Dear {{name}}", "5"])
def test_a_file_of_another_shape_is_refused(tmp_path: Path, content: str) -> None:
    """It can be read, and is no campaign."""
    assert refusal_of(write(tmp_path, content)).code == "campaign_invalid"


@pytest.mark.parametrize(
    "content",
    ["a: b: c", "{", "name: 2024-13-45", b"name: \xff", "[" * 5000, "{" * 5000, "a: !!python/object:os.system x"],
)
def test_a_malformed_file_is_refused(tmp_path: Path, content: str | bytes) -> None:
    """Whatever the parsers make of it, the operator gets a sentence."""
    path = write(tmp_path, content)
    refusal = refusal_of(path)
    assert refusal.code == "file_malformed"
    assert str(refusal).startswith(f"{path} is neither JSON nor YAML: ")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """So is a folder."""
    assert refusal_of(tmp_path / "none").code == "file_unreadable"
    assert refusal_of(tmp_path).code == "file_unreadable"


def test_a_template_that_breaks_a_rule_is_refused(tmp_path: Path) -> None:
    """By the rules of templates, with their codes."""
    document = {**CAMPAIGN, "templates": {"english": "Dear {{Name}}"}}
    assert refusal_of(write(tmp_path, json.dumps(document))).code == "parameter_name"
