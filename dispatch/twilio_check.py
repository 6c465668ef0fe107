"""Whether Twilio takes an account's credentials, for an operator who asks. Nothing is sent and nothing changed there.

It lists one message and looks at the messaging service. The account itself is shown to main keys only, so it is not
asked for (https://www.twilio.com/docs/iam/api-keys/keys-in-console); whether it is active, its messages tell.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from dispatch.twilio_http import Answer, Connections, NotSentError, ThrottledError, authorization
from postern.credentials import TwilioAccount
from postern.sms.twilio_codes import note_of

_BROKEN = (aiohttp.ClientError, TimeoutError)
_MAY_NOT = frozenset({401, 403})

# What is wrong and what to do, by the status of HTTP.
_OF_MESSAGES: Mapping[int, tuple[str, str]] = {
    401: (
        "Twilio does not accept the API key",
        "Mend POSTERN_TWILIO_API_KEY_SID and …_SECRET; the key has to be one of POSTERN_TWILIO_ACCOUNT_SID",
    ),
    403: (
        "Twilio knows the API key and refuses it",
        "Look into Twilio's console: whether the account is active, and whether the key may send and read messages",
    ),
    404: ("Twilio knows no such account", "Mend POSTERN_TWILIO_ACCOUNT_SID, or POSTERN_TWILIO_URL"),
}
_OF_SERVICE: Mapping[int, tuple[str, str]] = {
    404: (
        "Twilio takes the API key, and its account has no such messaging service",
        "Mend POSTERN_TWILIO_MESSAGING_SERVICE_SID",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """What Twilio had to say."""

    said: str
    advice: str = ""  # what to do; nothing where all is well
    is_usable: bool = True  # messages go by these credentials, or will by themselves


async def check_account(account: TwilioAccount, connections: Connections, base_url: str) -> Remark:
    """Ask Twilio whether it takes these credentials.

    Args:
        account: whose they are.
        connections: the pool.
        base_url: Twilio's API, or what stands in for it.
    """
    try:
        return await _ask(account, connections, base_url)
    except NotSentError as error:
        host = urlsplit(base_url).hostname
        advice = "See that this machine reaches it"
        return Remark(said=f"{host} cannot be reached ({error})", advice=advice, is_usable=False)
    except ThrottledError:
        return Remark(said="Twilio asks for a pause (429)", advice="See who else uses the account; ask again later")
    except _BROKEN as error:
        said = f"Twilio gave no answer to be understood ({type(error).__name__})"
        return Remark(said=said, advice="Mend POSTERN_TWILIO_URL, or ask again later", is_usable=False)


async def _ask(account: TwilioAccount, connections: Connections, base_url: str) -> Remark:
    key = authorization(account)
    messages = URL(f"{base_url}/2010-04-01/Accounts/{account.account_sid}/Messages.json")
    services = URL(f"{base_url.replace('//api.', '//messaging.', 1)}/v1/Services")
    listed = await connections.get(messages, key, PageSize="1")
    if not listed.is_success:
        return _refused(listed, _OF_MESSAGES)
    service = await connections.get(services / account.messaging_service_sid, key)
    if not service.is_success:
        return _refused(service, _OF_SERVICE)
    if "messages" not in listed.body or "sid" not in service.body:
        said = "Twilio gave no answer to be understood"
        return Remark(said=said, advice="Mend POSTERN_TWILIO_URL, or ask again later", is_usable=False)
    if service.body.get("smart_encoding"):
        advice = "Switch Smart Encoding off in the messaging service: it changes characters, and segments with them"
        return Remark(said="Twilio takes the API key; Smart Encoding is on", advice=advice)
    return Remark(said="Twilio takes the API key, and has the messaging service")


def _refused(answer: Answer, wrong: Mapping[int, tuple[str, str]]) -> Remark:
    told = ", ".join(filter(None, (str(answer.status), note_of(answer.code))))
    if wrong is _OF_SERVICE and answer.status in _MAY_NOT:  # a restricted key may well send by it
        return Remark(said=f"Twilio takes the API key, which may not look at the messaging service ({told})")
    said, advice = wrong.get(answer.status, ("Twilio cannot answer now", "See status.twilio.com; ask again later"))
    return Remark(said=f"{said} ({told})", advice=advice, is_usable=False)
