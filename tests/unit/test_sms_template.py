"""Templates: their parameters, what a body may hold, and the full message."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.pipeline_fixtures import a_campaign

from postern.errors import Refusal
from postern.model import Campaign, Environment, Language
from postern.settings import WorkerSettings
from postern.sms.frame import frame_for
from postern.sms.template import Frame, check_templates, parameters_of, render


def code_of(templates: Mapping[Language, str]) -> str:
    with pytest.raises(Refusal) as caught:
        check_templates(templates)
    return caught.value.code


def test_parameters_are_named_once_in_order() -> None:
    """The order is that of their first appearance."""
    assert parameters_of("{{topic}} for {{name}}: {{topic}} {{a1_b}}") == ["topic", "name", "a1_b"]


def test_values_take_the_place_of_their_parameters() -> None:
    """Everywhere they stand; the text around them stays."""
    assert render("Dear {{name}}, {{name}}: {{topic}}", {"name": "Emily", "topic": "tea"}) == "Dear Emily, Emily: tea"


@pytest.mark.parametrize("value", ["{{topic}}", "{{name}}", r"\1\g<0>", "%s {0}", "{{", "$name"])
def test_values_are_substituted_once(value: str) -> None:
    """A value that looks like a placeholder or a pattern is only a value."""
    assert render("Dear {{name}}, {{topic}}", {"name": value, "topic": "tea"}) == f"Dear {value}, tea"


def test_a_placeholder_without_a_value_stays() -> None:
    """Nothing is made up for it."""
    assert render("Dear {{name}}", {}) == "Dear {{name}}"


@given(st.lists(st.text(alphabet="ab-\\ \n汉")), st.text())
def test_rendering_leaves_all_else_as_it_was(between: list[str], value: str) -> None:
    """Text between placeholders comes through untouched."""
    assert render("{{x}}".join(between), {"x": value}) == value.join(between)


def test_templates_with_the_same_parameters_are_accepted() -> None:
    """Their order may differ from language to language; the first language's counts."""
    assert check_templates({Language.MALAY: "{{b}} {{a}}", Language.ENGLISH: "{{a}} {{b}} {{a}}"}) == ["b", "a"]


def test_a_template_may_have_no_parameters() -> None:
    """Everybody gets the same text then."""
    assert check_templates({Language.ENGLISH: "The office is closed."}) == []


@pytest.mark.parametrize("length", [1, 1000])
def test_a_body_of_up_to_1000_characters_is_accepted(length: int) -> None:
    """A placeholder counts nothing."""
    assert check_templates({Language.CHINESE: "汉" * length + "{{name}}{{another_name}}"}) == ["name", "another_name"]


@pytest.mark.parametrize(
    ("templates", "code"),
    [
        ({}, "template_missing"),
        ({Language.ENGLISH: ""}, "template_empty"),
        ({Language.ENGLISH: " \n\t"}, "template_empty"),
        ({Language.ENGLISH: "a" * 1001}, "template_too_long"),
        ({Language.ENGLISH: "a" * 1001 + "{{name}}"}, "template_too_long"),
        ({Language.ENGLISH: "{{Name}}"}, "parameter_name"),
        ({Language.ENGLISH: "{{ name }}"}, "parameter_name"),
        ({Language.ENGLISH: "{{1name}}"}, "parameter_name"),
        ({Language.ENGLISH: "{{na-me}}"}, "parameter_name"),
        ({Language.ENGLISH: "{{_name}}"}, "parameter_name"),
        ({Language.ENGLISH: "{{}}"}, "parameter_name"),
        ({Language.ENGLISH: "{{name\n}}"}, "parameter_name"),
        ({Language.ENGLISH: "{{näme}}"}, "parameter_name"),
        ({Language.ENGLISH: "{{recipient}}"}, "parameter_reserved"),
        ({Language.ENGLISH: "{{language}}"}, "parameter_reserved"),
        ({Language.CHINESE: "{{name}"}, "template_braces"),
        ({Language.CHINESE: "{{name"}, "template_braces"),
        ({Language.CHINESE: "name}}"}, "template_braces"),
        ({Language.CHINESE: "{{{{name}}}}"}, "template_braces"),
        ({Language.ENGLISH: "It’s {{name}}"}, "template_avoidable_character"),
        ({Language.ENGLISH: "a {b} {{name}}"}, "template_avoidable_character"),
        ({Language.ENGLISH: "{{a}}", Language.MALAY: "{{b}}"}, "template_parameters"),
        ({Language.ENGLISH: "{{a}}", Language.MALAY: "{{a}} {{b}}"}, "template_parameters"),
        ({Language.ENGLISH: "Hello", Language.TAMIL: "{{a}}"}, "template_parameters"),
    ],
)
def test_a_template_that_breaks_a_rule_is_refused(templates: Mapping[Language, str], code: str) -> None:
    """Each rule has its code."""
    assert code_of(templates) == code


def test_a_refusal_says_where_and_what() -> None:
    """The language, and each avoidable character with its replacement."""
    with pytest.raises(Refusal, match=r"english .*U\+2019 RIGHT SINGLE QUOTATION MARK \(use '\)"):
        check_templates({Language.ENGLISH: "It’s"})


@pytest.mark.parametrize("language", [Language.CHINESE, Language.MALAY, Language.TAMIL])
def test_only_english_templates_avoid_characters(language: Language) -> None:
    """Other languages are Unicode anyway, or nearly so."""
    assert check_templates({language: "“{{name}}” – {ok}"}) == ["name"]


def test_the_full_message_is_header_body_and_footer() -> None:
    """Joined by a line of three dashes."""
    frame = Frame(header="Ministry", footers={Language.ENGLISH: "Bye."})
    assert frame.around("Hello", Language.ENGLISH) == "Ministry\n\n---\n\nHello\n\n---\n\nBye."


@pytest.fixture
def campaign() -> Campaign:
    """A campaign of the agency `Ministry`."""
    return a_campaign()


def test_the_english_overhead_is_that_of_the_service(campaign: Campaign) -> None:
    """The agency's name, 62 characters of footer and two separators of 7."""
    frame = frame_for(campaign, WorkerSettings())
    assert len(frame.around("", Language.ENGLISH)) == len(campaign.agency) + 76


def test_a_training_notice_stands_first_in_the_test_environment(campaign: Campaign) -> None:
    """And a blank line after it."""
    settings = WorkerSettings(environment=Environment.TEST, header_notice="Training.")
    full = frame_for(campaign, settings).around("Hello", Language.CHINESE)
    assert full == f"Training.\n\nMinistry\n\n---\n\nHello\n\n---\n\n{settings.footer_chinese}"
