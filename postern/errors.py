"""The exceptions of Postern: what was refused, what is wrong with the settings, what broke on our side.

Bad data in an upload is never an exception; it is a `postern.model.Finding`.
"""


class PosternError(Exception):
    """Something that a person has to be told; the message is the sentence."""


class SettingsError(PosternError):
    """One or more settings cannot be used. The message lists all of them."""


class Refusal(PosternError):  # noqa: N818 - a refusal is an answer, not an error
    """A request that Postern understood and will not carry out.

    `code` is stable and for programs, the message is for people.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class NotFoundError(Refusal):
    """Nothing has that id."""

    def __init__(self, kind: str, wanted: str) -> None:
        super().__init__("not_found", f"There is no {kind} {wanted}.")


class TransientError(PosternError):
    """Something outside this process did not answer; the same call may succeed later."""


class ProcessEndedError(TransientError):
    """A process of ours ended before it answered; whether it did what it was asked, or died of that, is not known."""
