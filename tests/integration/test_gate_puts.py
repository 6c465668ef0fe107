"""What batch jobs do: the stock `sftp` and `scp` against a gate that runs."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from integration.gate_fixtures import GOOD, Home, make_home, run, running, until

from sftpd.refusals import RefusalCode, refuse
from storage.spool_records import EventKind


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    """A gate that takes files under 4 MB."""
    home = make_home(tmp_path)
    async with running(home):
        yield home


def names(home: Home) -> list[str]:
    return [sidecar.file_name for sidecar, _data in home.accepted()]


async def test_a_put_is_accepted_with_its_record(home: Home) -> None:
    """One put, exit status 0, and the spool holds bytes and record; the login is told."""
    outcome = await home.sftp(f"put {home.file('good.csv')}")
    assert outcome.status == 0, outcome.output
    ((sidecar, data),) = home.accepted()
    (entry,) = home.entries[home.campaign_id]
    assert data == GOOD
    assert (sidecar.campaign_id, sidecar.file_name) == (home.campaign_id, "good.csv")
    assert (sidecar.size, sidecar.sha256) == (len(GOOD), hashlib.sha256(GOOD).hexdigest())
    assert (sidecar.enrolment_id, sidecar.key_fingerprint) == (entry.enrolment_id, entry.fingerprint)
    assert sidecar.peer == "127.0.0.1"
    await until(lambda: home.events(EventKind.LOGIN))
    (login,) = home.events(EventKind.LOGIN)
    assert (login.campaign_id, login.key_fingerprint) == (home.campaign_id, entry.fingerprint)
    assert home.unfinished() == []


@pytest.mark.parametrize(
    "target", ["", ".", "/", "upload/", "/upload/", "upload", "/a/b/v1.2/", "other.csv", "upload/other.csv"]
)
async def test_a_put_into_any_folder_is_accepted(home: Home, target: str) -> None:
    """Folders are what the client says; only the last name counts."""
    outcome = await home.sftp(f"put {home.file('good.csv')} {target}")
    assert outcome.status == 0, outcome.output
    assert names(home) == ["other.csv" if target.endswith("other.csv") else "good.csv"]


@pytest.mark.parametrize("options", [["-p"], ["-f"], ["-p", "-f"]])
async def test_put_with_times_and_sync_is_accepted(home: Home, options: list[str]) -> None:
    """FSETSTAT and fsync before the close do no harm."""
    outcome = await home.sftp(f"put {' '.join(options)} {home.file('good.csv')}")
    assert outcome.status == 0, outcome.output
    assert names(home) == ["good.csv"]


async def test_a_folder_of_files_is_accepted(home: Home) -> None:
    """`mkdir`, `cd`, several puts and their listing in one session."""
    first, second = home.file("jobs/a.csv"), home.file("jobs/b.csv", GOOD * 2)
    outcome = await home.sftp(
        "mkdir out.box", "cd out.box", f"put {first}", "chmod 600 a.csv", f"put {second}", "ls -l", "rmdir x", "pwd"
    )
    assert outcome.status == 0, outcome.output
    assert names(home) == ["a.csv", "b.csv"]
    assert f"{len(GOOD) * 2} " in outcome.output


async def test_a_recursive_put_is_accepted(home: Home) -> None:
    """`put -r` makes a folder and puts into it."""
    home.file("jobs/a.csv")
    outcome = await home.sftp(f"put -r {home.folder / 'jobs'}")
    assert outcome.status == 0, outcome.output
    assert names(home) == ["a.csv"]


@pytest.mark.parametrize("options", [[], ["-p"]])
@pytest.mark.parametrize("target", ["", ".", "upload/", "/", "other.csv"])
async def test_scp_is_accepted_and_exits_0(home: Home, target: str, options: list[str]) -> None:
    """scp asks for an exit status at the end of the session."""
    outcome = await home.scp(home.file("good.csv"), target, *options)
    assert outcome.status == 0, outcome.output
    assert names(home) == ["other.csv" if target == "other.csv" else "good.csv"]


async def test_old_scp_is_told_what_to_do(home: Home) -> None:
    """Its protocol is a command, and there is none to be run; scp itself would only say "lost connection"."""
    outcome = await home.scp(home.file("good.csv"), "", "-O")
    assert outcome.status == 1
    assert "use scp without -O" in outcome.output
    assert home.accepted() == []


@pytest.mark.parametrize("command", ["id", "scpx -t .", "sftp", ""])
async def test_commands_are_refused(home: Home, command: str) -> None:
    """Every other one, and the shell that no command stands for."""
    login = ["-p" if option == "-P" else option for option in home.login()]
    outcome = await run("ssh", *login, home.address(), *([command] if command else []))
    assert outcome.status == 255
    assert "request failed on channel" in outcome.output


async def test_a_large_file_comes_through_unchanged(home: Home) -> None:
    """Many pipelined writes make the same bytes."""
    content = b"recipient,language\n" + b"6599999999,english\n" * 200_000
    outcome = await home.sftp(f"put {home.file('large.csv', content)}")
    assert outcome.status == 0, outcome.output
    ((sidecar, data),) = home.accepted()
    assert data == content
    assert sidecar.sha256 == hashlib.sha256(content).hexdigest()


async def test_an_empty_file_is_accepted(home: Home) -> None:
    """Its validation says what is wrong with it."""
    outcome = await home.sftp(f"put {home.file('empty.csv', b'')}")
    assert outcome.status == 0, outcome.output
    assert [(sidecar.size, data) for sidecar, data in home.accepted()] == [(0, b"")]


async def test_a_temporary_name_and_its_rename_are_one_upload(home: Home) -> None:
    """Put, rename, look: as WinSCP and rclone do it."""
    outcome = await home.sftp(
        f"put {home.file('good.csv')} good.csv.filepart", "rename good.csv.filepart good.csv", "ls -l good.csv"
    )
    assert outcome.status == 0, outcome.output
    assert names(home) == ["good.csv"]
    assert home.events() == []


async def test_a_temporary_name_that_stays_is_no_upload(home: Home) -> None:
    """The client's puts succeed, but the owner is told that nothing came of it."""
    outcome = await home.sftp(f"put {home.file('good.csv')} good.csv.part")
    assert outcome.status == 0, outcome.output
    (event,) = home.events()
    assert (event.file_name, event.size) == ("good.csv.part", len(GOOD))
    assert "never renamed" in event.reason
    assert (home.accepted(), home.unfinished()) == ([], [])


async def test_removing_and_renaming_change_nothing_about_an_upload(home: Home) -> None:
    """Both answer OK, also in a later session."""
    await home.sftp(f"put {home.file('good.csv')}")
    outcome = await home.sftp("rm good.csv", "rename good.csv other.csv")
    assert outcome.status == 0, outcome.output
    assert names(home) == ["good.csv"]


async def test_the_same_file_twice_is_two_uploads(home: Home) -> None:
    """Whether it is a repeat is decided behind the gate."""
    file = home.file("good.csv")
    outcome = await home.sftp(f"put {file}", f"put {file}")
    assert outcome.status == 0, outcome.output
    assert names(home) == ["good.csv", "good.csv"]


async def test_too_large_a_file_fails_with_a_message(home: Home) -> None:
    """The client prints why and fails; nothing stays but the event."""
    outcome = await home.sftp(f"put {home.file('big.csv', b'x' * 4_000_000)}")
    assert outcome.status != 0
    assert "must be smaller than 4,000,000 bytes" in outcome.output
    assert (home.accepted(), home.unfinished()) == ([], [])
    (event,) = home.events()
    assert event.file_name == "big.csv"
    assert "smaller than 4,000,000 bytes" in event.reason


async def test_a_byte_less_than_the_limit_is_accepted(home: Home) -> None:
    """The file must be smaller than the limit, no more."""
    outcome = await home.sftp(f"put {home.file('big.csv', b'x' * 3_999_999)}")
    assert outcome.status == 0, outcome.output
    assert [sidecar.size for sidecar, _data in home.accepted()] == [3_999_999]


async def test_scp_of_too_large_a_file_fails(home: Home) -> None:
    """An exit status of 0 for the session makes no success of it."""
    outcome = await home.scp(home.file("big.csv", b"x" * 5_000_000), "")
    assert outcome.status != 0
    assert "must be smaller" in outcome.output
    assert home.accepted() == []


@pytest.mark.parametrize("target", ["notes.txt", "good.xlsx", "good.csv.gz", "good.csv.part.bak"])
async def test_another_name_is_refused_with_a_reason(home: Home, target: str) -> None:
    """Only .csv files are taken; the client prints so, and the owner is told."""
    outcome = await home.sftp(f"put {home.file('good.csv')} {target}")
    assert outcome.status != 0
    assert f'"{target}" is not a .csv file' in outcome.output
    assert (home.accepted(), home.unfinished()) == ([], [])
    assert [event.file_name for event in home.events()] == [target]


async def test_resuming_is_refused(home: Home) -> None:
    """`reput` finds the upload, and is told to put the whole file."""
    await home.sftp(f"put {home.file('good.csv')}")
    longer = home.file("longer/good.csv", GOOD * 3)
    outcome = await home.sftp(f"reput {longer}")
    assert outcome.status != 0
    assert "put the whole file again" in outcome.output
    assert names(home) == ["good.csv"]


async def test_reading_is_refused(home: Home) -> None:
    """A session sees names and sizes, never bytes."""
    await home.sftp(f"put {home.file('good.csv')}")
    outcome = await home.sftp(f"get good.csv {home.folder / 'stolen.csv'}")
    assert outcome.status != 0
    assert str(refuse(RefusalCode.READING)) in outcome.output
    assert not (home.folder / "stolen.csv").exists()


async def test_a_listing_shows_the_campaigns_uploads_only(home: Home) -> None:
    """Another campaign's session sees nothing of it."""
    other = "campaign_00000000-0000-4000-8000-000000000000"
    home.enrol(home.folder / "other-key", other)
    await home.refreshed()
    await home.sftp(f"put {home.file('good.csv')}")
    mine = await home.sftp("ls -l")
    assert "good.csv" in mine.output
    assert f" {len(GOOD)} " in mine.output
    theirs = await home.sftp("ls -l", key=home.folder / "other-key", user=other)
    assert theirs.status == 0, theirs.output
    assert "good.csv" not in theirs.output


@pytest.mark.parametrize("command", ["symlink good.csv link.csv", "ln good.csv link.csv", "df", "copy good.csv b.csv"])
async def test_everything_else_is_refused(home: Home, command: str) -> None:
    """Links, copies and the disk's size are none of a drop box's business."""
    await home.sftp(f"put {home.file('good.csv')}")
    outcome = await home.sftp(command)
    assert outcome.status != 0
    assert names(home) == ["good.csv"]
