"""Which files of uploads have been kept long enough. The ledger's rows stay for good; only what they point to goes."""

from collections.abc import Callable
from datetime import datetime

import sqlalchemy as sa

from storage.database import Database
from storage.tables import uploads


def old_reports(database: Database, *, before: datetime, most: int) -> list[tuple[str, str]]:
    """The uploads whose outcome was before that time and whose report is kept, oldest first: id and key."""
    return _kept(database, uploads.c.report_key, before, most)


def old_files(database: Database, *, before: datetime, most: int) -> list[tuple[str, str]]:
    """The uploads whose outcome was before that time and whose bytes are kept, oldest first: id and key."""
    return _kept(database, uploads.c.blob_key, before, most)


def forget_reports(database: Database, upload_ids: list[str]) -> None:
    """Note that the reports of these uploads are gone."""
    if upload_ids:
        with database.write() as connection:
            connection.execute(uploads.update().where(uploads.c.id.in_(upload_ids)).values(report_key=None))


def clear_file(database: Database, upload_id: str, *, before: datetime, delete: Callable[[], None]) -> bool:
    """Delete an upload's bytes, unless it is tried again meanwhile.

    They go while its row is locked, so a retry comes before, and they stay, or after, and is refused. A crash before
    the commit does it again; no bytes stay that nobody knows of.

    Returns:
        whether they are gone.
    """
    with database.write() as connection:
        cleared = connection.execute(
            uploads.update()
            .where(uploads.c.id == upload_id, uploads.c.finished_at < before, uploads.c.blob_key.is_not(None))
            .values(blob_key=None)
        )
        if cleared.rowcount:
            delete()
    return bool(cleared.rowcount)


def _kept(database: Database, key: sa.Column[str | None], before: datetime, most: int) -> list[tuple[str, str]]:
    query = (
        sa.select(uploads.c.id, key)
        .where(uploads.c.finished_at < before, key.is_not(None))
        .order_by(uploads.c.finished_at)
        .limit(most)
    )
    with database.read() as connection:
        return [(row[0], str(row[1])) for row in connection.execute(query)]
