"""Many uploads with contents of their own, and what must hold of them afterwards: none lost, nothing done twice."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.hosts import Site

_FIRST_NUMBER = 81_000_000
_MESSAGES = (
    "FROM messages JOIN batches ON batches.number = messages.batch JOIN uploads ON uploads.id = batches.upload_id"
)


@dataclass(frozen=True, kw_only=True)
class File:
    """A file to put."""

    path: Path
    campaign_id: str
    recipients: Sequence[str]
    is_bad: bool

    @property
    def outcome(self) -> str:
        """What must become of it."""
        return "rejected" if self.is_bad else "accepted"


def make_files(
    folder: Path, campaigns: Sequence[str], count: int, *, rows: int, one_bad_in: int, start: int = 0
) -> list[File]:
    """Files for campaigns in turn, all different, with recipients that no other one has.

    Args:
        folder: where they are written.
        campaigns: their templates have the one parameter `name`.
        count: how many files.
        rows: of each.
        one_bad_in: one in so many has a bad row, its last.
        start: the number of the first; files of other numbers have other names and recipients.
    """
    folder.mkdir(exist_ok=True)
    files = []
    for number in range(start, start + count):
        is_bad = number % one_bad_in == 0
        recipients = [f"65{_FIRST_NUMBER + number * rows + row}" for row in range(rows)]
        lines = ["recipient,language,name", *(f"{recipient},english,Emily {number}" for recipient in recipients)]
        if is_bad:
            lines[-1] = f"{recipients[-1]},klingon,Emily {number}"
        path = folder / f"file-{number:04}.csv"
        path.write_text("\n".join(lines) + "\n")
        file = File(path=path, campaign_id=campaigns[number % len(campaigns)], recipients=recipients, is_bad=is_bad)
        files.append(file)
    return files


def count_outcomes(site: Site, files: Sequence[File]) -> int:
    """How many of their uploads have their outcome."""
    statement = f"SELECT count(*) FROM uploads WHERE finished_at IS NOT NULL AND {_of(files)}"
    return int(site.query(statement)[0][0])


def is_all_done(site: Site, files: Sequence[File]) -> bool:
    """Whether each upload has its outcome, each message its end and each mail has left."""
    if count_outcomes(site, files) < len(files):
        return False
    open_messages = f"SELECT count(*) {_MESSAGES} WHERE latest_status NOT IN ('success', 'failure') AND {_of(files)}"
    open_mails = (
        "SELECT count(*) FROM notices JOIN uploads ON uploads.id = upload_id WHERE notices.status <> 'sent' "
        f"AND {_of(files)}"
    )
    return site.query(open_messages)[0][0] == 0 and site.query(open_mails)[0][0] == 0


def check(site: Site, files: Sequence[File], mails: Mapping[str, int], *, killed: bool = False) -> None:
    """Hold ledger, provider's journal and mails against what was put; all must be done.

    Args:
        site: the installation.
        files: what was put, each file once.
        mails: how often each mail has arrived, by a name that holds the id of its upload.
        killed: processes were killed, so hand-overs may be in doubt, and a mail may have come twice.
    """
    uploads = site.query(f"SELECT id, file_name, status FROM uploads WHERE {_of(files)}")
    assert Counter(name for _id, name, _status in uploads) == Counter(file.path.name for file in files)
    outcomes = {name: status for _id, name, status in uploads}
    assert outcomes == {file.path.name: file.outcome for file in files}

    good = [file for file in files if not file.is_bad]
    totals = site.query(
        f"SELECT file_name, total FROM batches JOIN uploads ON uploads.id = upload_id WHERE {_of(files)}"
    )
    assert sorted(totals) == sorted((file.path.name, len(file.recipients)) for file in good)
    _check_messages(site, files, {recipient for file in good for recipient in file.recipients}, killed=killed)

    for upload_id, name, _status in uploads:
        arrived = [times for mail, times in mails.items() if upload_id in mail]
        assert len(arrived) == 1, f"{len(arrived)} different mails about {name}"
        assert killed or arrived == [1], f"the mail about {name} came {arrived[0]} times"


def _check_messages(site: Site, files: Sequence[File], wanted: set[str], *, killed: bool) -> None:
    made = Counter(recipient for (recipient,) in site.query(f"SELECT recipient {_MESSAGES} WHERE {_of(files)}"))
    assert made == Counter(wanted), "a message is missing, or is there twice"
    journal = Counter(recipient for (recipient,) in site.query("SELECT recipient FROM simulator_journal"))
    handed = Counter({recipient: times for recipient, times in journal.items() if recipient in wanted})
    assert max(handed.values()) == 1, "a message was handed over twice"
    doubtful = {
        recipient
        for (recipient,) in site.query(
            "SELECT messages.recipient FROM attempts JOIN messages "
            'ON messages.batch = attempts.batch AND messages."row" = attempts."row" WHERE attempts.inferred'
        )
        if recipient in wanted
    }
    assert killed or not doubtful, f"{len(doubtful)} messages are in doubt, though nothing was killed"
    assert wanted - set(handed) <= doubtful, "a message was lost"
    assert not doubtful & set(handed), "a hand-over that the provider knew of was not found"


def _of(files: Sequence[File]) -> str:
    names = ", ".join(f"'{file.path.name}'" for file in files)
    return f"file_name IN ({names})"
