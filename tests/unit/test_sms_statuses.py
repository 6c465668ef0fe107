"""The status of an attempt as a state machine: every move, and any order of receipts."""

import itertools

import pytest
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from hypothesis.strategies import booleans, sampled_from

from postern.model import MessageStatus
from postern.sms.statuses import FINAL, accepts, shown_as

WAY = ["created", "enqueued", "sending", "sent", "sent_to_telco", "success"]
REPORTED = ["sent", "sent_to_telco", "success", "failure"]


def may_follow(current: str, reported: str) -> bool:
    """The contract in a line: nothing leaves a final status, nothing goes back."""
    if current in {"success", "failure"}:
        return False
    return reported == "failure" or WAY.index(reported) > WAY.index(current)


@pytest.mark.parametrize(("current", "reported"), list(itertools.product(MessageStatus, repeat=2)))
def test_a_status_moves_forward_only(current: MessageStatus, reported: MessageStatus) -> None:
    """Every pair of statuses: later ones and final ones are taken, repeated and earlier ones change nothing."""
    assert accepts(current, reported, inferred=False) == may_follow(current, reported)


@pytest.mark.parametrize(("reported", "taken"), [(status, status in FINAL) for status in MessageStatus])
def test_an_inferred_failure_gives_way_to_a_final_receipt(reported: MessageStatus, taken: bool) -> None:
    """What the provider knows in the end counts for more than what we concluded; its interim news does not."""
    assert accepts(MessageStatus.FAILURE, reported, inferred=True) is taken


@pytest.mark.parametrize("reported", MessageStatus)
def test_a_success_is_never_taken_back(reported: MessageStatus) -> None:
    """Whatever comes after it, inferred or not."""
    assert not accepts(MessageStatus.SUCCESS, reported, inferred=True)
    assert not accepts(MessageStatus.SUCCESS, reported, inferred=False)


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ("created", "pending"),
        ("enqueued", "pending"),
        ("sending", "pending"),
        ("sent", "sent"),
        ("sent_to_telco", "sent"),
        ("success", "success"),
        ("failure", "failure"),
    ],
)
def test_the_word_that_people_see(status: str, word: str) -> None:
    """Seven statuses, four words."""
    assert shown_as(MessageStatus(status)) == word


class Receipts(RuleBasedStateMachine):
    """An attempt to which receipts come in any order, late and twice, and which we may give up."""

    @initialize()
    def start(self) -> None:
        self.status, self.inferred, self.history = MessageStatus.SENDING, False, [MessageStatus.SENDING]
        self.final_receipts: list[MessageStatus] = []

    @rule(reported=sampled_from([MessageStatus(status) for status in REPORTED]), twice=booleans())
    def receipt(self, reported: MessageStatus, twice: bool) -> None:
        for _ in range(1 + twice):
            if reported in FINAL:
                self.final_receipts.append(reported)
            if accepts(self.status, reported, inferred=self.inferred):
                self.status, self.inferred = reported, False
                self.history.append(reported)

    @rule()
    def expire(self) -> None:
        if accepts(self.status, MessageStatus.FAILURE, inferred=False):
            self.status, self.inferred = MessageStatus.FAILURE, True
            self.history.append(MessageStatus.FAILURE)

    @invariant()
    def the_first_final_receipt_counts(self) -> None:
        if self.final_receipts:
            assert self.status is self.final_receipts[0]

    @invariant()
    def nothing_went_back(self) -> None:
        places = [list(MessageStatus).index(status) for status in self.history if status not in FINAL]
        assert places == sorted(set(places))


TestReceipts = Receipts.TestCase
TestReceipts.__doc__ = "Whatever comes in whatever order, the provider's first final word is what stays."
