"""Templates: `{{name}}` placeholders, what a body may hold, and how a full message is put together.

Values are substituted once: a `{{topic}}` inside a value stays as it is.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from postern.errors import Refusal
from postern.model import Language
from postern.sms.characters import avoidable_in

PLACEHOLDER = re.compile(r"\{\{([^{}]*)\}\}")
PARAMETER_NAME = re.compile(r"[a-z][a-z0-9_]*")
RESERVED = frozenset({"recipient", "language"})
MAX_BODY = 1000  # characters
LONG_BODY = 320  # characters; longer ones are delivered more slowly
SEPARATOR = "\n\n---\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What stands around every body: the part before it and the footer of each language."""

    header: str
    footers: Mapping[Language, str]

    def around(self, body: str, language: Language) -> str:
        """The full message."""
        return f"{self.header}{SEPARATOR}{body}{SEPARATOR}{self.footers[language]}"


def parameters_of(body: str) -> list[str]:
    """The parameters of a body, each once, in the order of their first appearance."""
    return list(dict.fromkeys(PLACEHOLDER.findall(body)))


def render(body: str, values: Mapping[str, str]) -> str:
    """The body with its placeholders replaced; a placeholder without a value stays as it is."""
    return PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), body)


def check_templates(templates: Mapping[Language, str]) -> list[str]:
    """Check the bodies of one campaign against each other and against the rules.

    Returns:
        the parameters, in the order of the first language.

    Raises:
        Refusal: says which language, and what to change.
    """
    if not templates:
        raise Refusal("template_missing", "Give the campaign a template in at least one language.")
    for language, body in templates.items():
        _check_body(language, body)
    names = {language: parameters_of(body) for language, body in templates.items()}
    first = next(iter(names))
    for language, found in names.items():
        if set(found) != set(names[first]):
            difference = ", ".join(sorted(set(found) ^ set(names[first])))
            raise Refusal(
                "template_parameters",
                f"Every language needs the same parameters; {language} and {first} differ in: {difference}.",
            )
    return names[first]


def _check_body(language: Language, body: str) -> None:
    if not body.strip():
        raise Refusal("template_empty", f"The {language} template is empty.")
    for name in parameters_of(body):
        if not PARAMETER_NAME.fullmatch(name):
            raise Refusal(
                "parameter_name",
                f"The {language} template has a parameter {{{{{name}}}}}: a name starts with a lower-case letter "
                "and holds lower-case letters, digits and _ only.",
            )
        if name in RESERVED:
            raise Refusal("parameter_reserved", f"{{{{{name}}}}} is reserved: call the parameter something else.")
    plain = PLACEHOLDER.sub("", body)
    if "{{" in plain or "}}" in plain:
        raise Refusal("template_braces", f"The {language} template has a {{{{ or }}}} that is not a whole placeholder.")
    if len(plain) > MAX_BODY:
        raise Refusal(
            "template_too_long",
            f"The {language} template has {len(plain):,} characters without placeholders; the limit is {MAX_BODY:,}.",
        )
    avoidable = avoidable_in(plain) if language is Language.ENGLISH else []
    if avoidable:
        listed = "; ".join(f"{found.code_point} {found.name} ({found.advice})" for found in avoidable)
        raise Refusal("template_avoidable_character", f"The {language} template has avoidable characters: {listed}.")
