"""What is decided about uploads, as commands and jobs carry it out, on both databases."""

import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.domain import NOW, add_campaign, enrol, held_upload, new_upload, validating_upload
from typer.testing import CliRunner

from dispatch import decisions as decision_jobs
from postern.cli import retrying
from postern.cli.app import app
from postern.model import UploadStatus
from storage.database import Database
from storage.engine import Jobs
from storage.jobs import END_UNSENT, JobKind
from storage.ledger import decisions
from storage.ledger.campaigns import delete_campaign
from storage.ledger.receiving import receive_upload
from storage.ledger.uploads import fail_upload, get_upload, list_uploads

pytest_plugins = ["support.databases"]


@pytest.fixture
def again(database: Database, jobs: Jobs, tmp_path: Path) -> tuple[str, str, dict[str, str]]:
    """An upload that failed, the same bytes that came after it, and what the command knows."""
    campaign = add_campaign(database)
    failed = validating_upload(database, jobs, campaign)
    fail_upload(database, jobs, failed.id, support_id="support_1", reason="x", context={}, now=NOW)
    other = new_upload(enrol(database, campaign))
    receive_upload(database, jobs, other)
    environ = {"POSTERN_HOME": str(tmp_path), "POSTERN_DATABASE_URL": database.url, "POSTERN_REPEAT_WINDOW": "24"}
    return failed.id, other.id, environ


def retry(environ: dict[str, str], *arguments: str, **options: Any) -> Any:
    return CliRunner().invoke(app, ["upload", "retry", *arguments], env=environ, **options)


def test_a_retry_that_is_a_repeat_takes_yes(database: Database, again: tuple[str, str, dict[str, str]]) -> None:
    """The refusal names the other upload."""
    failed, other, environ = again
    refused = retry(environ, failed, "--json")
    error = json.loads(refused.stderr)["error"]
    assert (refused.exit_code, error["code"]) == (1, "is_repeat")
    assert other in error["message"]
    assert get_upload(database, failed).status is UploadStatus.FAILED
    assert json.loads(retry(environ, failed, "--yes", "--json").stdout)["status"] == "validating"


def test_where_repeats_are_not_asked_for_a_retry_goes_on(again: tuple[str, str, dict[str, str]]) -> None:
    """As the window is none."""
    failed, _other, environ = again
    assert retry(environ | {"POSTERN_REPEAT_WINDOW": "0"}, failed).exit_code == 0


@pytest.mark.parametrize(("answer", "status"), [("y", UploadStatus.VALIDATING), ("n", UploadStatus.FAILED)])
def test_a_terminal_is_asked(
    database: Database,
    again: tuple[str, str, dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    status: UploadStatus,
) -> None:
    """Whether the repeat may be."""
    failed, other, environ = again
    terminal = SimpleNamespace(isatty=lambda: True)
    monkeypatch.setattr(retrying, "sys", SimpleNamespace(stdin=terminal, stderr=terminal))
    said = retry(environ, failed, input=f"{answer}\n")
    assert "Retry all the same?" in said.output
    assert other in said.output.replace("\n", "")
    assert said.exit_code == (0 if answer == "y" else 1)
    assert get_upload(database, failed).status is status


async def test_a_job_drops_what_is_held_of_a_deleted_campaign(
    database: Database, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slice after slice, until none is left."""
    monkeypatch.setattr(decisions, "_SLICE", 2)
    campaign = add_campaign(database)
    key = enrol(database, campaign)
    for number in range(7):
        held_upload(database, jobs, key, sha256=f"{number:064}", is_cut_off=True)
    delete_campaign(database, jobs, campaign.id, actor="operator", now=NOW)
    workflows: dict[str, Callable[..., Coroutine[Any, Any, Any]]] = {}

    def register(kind: JobKind, workflow: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        workflows[kind.name] = workflow

    dispatch = SimpleNamespace(database=database, jobs=jobs, now=lambda: NOW)
    decision_jobs.register(SimpleNamespace(register=register), dispatch)  # type: ignore[arg-type]
    await workflows[END_UNSENT.name](campaign.id)
    assert {upload.status for upload in list_uploads(database)} == {UploadStatus.DROPPED}
