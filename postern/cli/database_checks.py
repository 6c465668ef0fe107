"""What `postern doctor` looks at in a database that answers."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from postern.cli.findings import Line, Status, age, clock, waiting_line
from postern.errors import PosternError
from postern.secret import fingerprint, load_secret, source_of_secret
from postern.times import utc_now

if TYPE_CHECKING:
    from postern.credentials import Vault
    from storage.database import Database

_NAMED = 5  # campaigns in one line
_PATIENCE = timedelta(minutes=15)  # for what should take seconds
_BATCH_PATIENCE = timedelta(hours=24)  # for what a large batch may take


def database_server(database: "Database") -> list[Line]:
    """Which database it is."""
    import sqlalchemy as sa

    query = "SELECT sqlite_version()" if database.is_sqlite else "SELECT current_setting('server_version')"
    with database.read() as connection:
        version = connection.execute(sa.text(query)).scalar_one()
    kind = "SQLite" if database.is_sqlite else "PostgreSQL"
    return [Line(check="database", detail=f"{kind} {version}, {database.path}")]


def migrations(database: "Database") -> list[Line]:
    """The revision of the database beside that of the program."""
    from storage.migrate import HEAD, State, revision_of, state_of

    revision = revision_of(database)
    state = state_of(revision)
    if state is State.CURRENT:
        return [Line(check="migrations", detail=f"revision {revision}")]
    if state is State.NEWER:
        detail, advice = f"revision {revision} is newer than {HEAD} of this version", "Finish the upgrade of this host"
        return [Line(check="migrations", status=Status.WARNING, detail=detail, advice=advice)]
    detail = f"revision {revision}; this version needs {HEAD}" if revision else f"empty; this version needs {HEAD}"
    return [Line(check="migrations", status=Status.WRONG, detail=detail, advice="Run: postern db migrate")]


def database_clock(database: "Database") -> list[Line]:
    """Whether this machine and the database's agree on the time; SQLite is on this machine."""
    import sqlalchemy as sa

    if database.is_sqlite:
        return []
    before = utc_now()
    with database.read() as connection:
        told = connection.execute(sa.text("SELECT clock_timestamp()")).scalar_one()
    return [clock("clock of the database", before, told, timedelta())]


def backlog(database: "Database") -> list[Line]:
    """What waits, and since when."""
    from storage.backlog import Waiting, waiting_in_ledger, waiting_jobs

    worker = "See that a worker runs and what its log says"
    advice = {
        "uploads": f"{worker}; postern upload list shows them",
        "held uploads": "",  # a person decides, in their own time
        "mails": "See what the mail server says in the worker's log",
    }

    def line(name: str, waiting: Waiting, patience: timedelta | None, advice: str) -> Line:
        return waiting_line(name, "waiting", waiting.count, waiting.since, patience, advice)

    lines = [
        line(waiting.what, waiting, _PATIENCE if advice[waiting.what] else None, advice[waiting.what])
        for waiting in waiting_in_ledger(database)
    ]
    for waiting in waiting_jobs(database):
        patience = _BATCH_PATIENCE if waiting.what in {"batch", "indexes"} else _PATIENCE
        lines.append(line(f"queue {waiting.what}", waiting, patience, worker))
    return lines


def dead_jobs(database: "Database") -> list[Line]:
    """Jobs that the engine has given up."""
    from storage.job_records import JobRecords

    records = JobRecords(database.url)
    try:
        dead = records.dead()
    finally:
        records.close()
    if not dead:
        return [Line(check="dead jobs", detail="none")]
    kinds = ", ".join(sorted({job.kind for job in dead}))
    advice = "Search the worker's log for job.dead, which names each; mend what killed it"
    return [Line(check="dead jobs", status=Status.WRONG, detail=f"{len(dead)} ({kinds})", advice=advice)]


def sealed_credentials(database: "Database", home: Path) -> list[Line]:
    """Whether the credentials of campaigns open with the secret key; nothing where no campaign has any."""
    from postern.credentials import Vault
    from storage.ledger.credentials import list_credentials

    sealed = list_credentials(database)
    if not sealed:
        return []
    give = "give them anew: postern campaign credentials"
    if source_of_secret(home) is None:
        detail = f"{len(sealed)} campaigns have some, and there is no secret key here to open them"
        advice = f"Set POSTERN_SECRET_KEY to the key that they were sealed with, or {give}"
        return [Line(check="credentials", status=Status.WRONG, detail=detail, advice=advice)]
    vault = Vault(load_secret(home))
    closed = [campaign_id for campaign_id, one in sealed.items() if not _opens(vault, one.sealed, campaign_id)]
    if not closed:
        return [Line(check="credentials", detail=f"{len(sealed)}; all open with the secret key")]
    named = ", ".join(closed[:_NAMED]) + (", …" if len(closed) > _NAMED else "")
    detail = f"{len(closed)} of {len(sealed)} do not open with the secret key {fingerprint(load_secret(home))}: {named}"
    advice = f"Set POSTERN_SECRET_KEY to the key that they were sealed with, the same on all hosts; or {give}"
    return [Line(check="credentials", status=Status.WRONG, detail=detail, advice=advice)]


def _opens(vault: "Vault", sealed: bytes, campaign_id: str) -> bool:
    try:
        vault.open(sealed, campaign_id)
    except (PosternError, ValueError):  # ValueError: it opens, and holds what no version of ours sealed
        return False
    return True


def accounts(database: "Database") -> list[Line]:
    """Accounts at the provider that take nothing now."""
    from storage.ledger.accounts import list_circuits

    return [
        Line(
            check="provider account",
            status=Status.WARNING,
            detail=f"{circuit.account_id} takes nothing for {age(circuit.opened_at)}: {circuit.trouble}",
            advice=f"See postern provider status{circuit.detail and f'; the provider said: {circuit.detail}'}",
        )
        for circuit in list_circuits(database, now=utc_now())
    ]
