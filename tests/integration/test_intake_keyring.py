"""Intake keeps the gate's keyring true to the ledger."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncssh
import pytest
import sqlalchemy as sa
from support.domain import NOW, OWNER, SECOND, add_campaign, enrol
from support.host import Host, host_on
from support.postgresql import Cluster
from support.waiting import until_async

from keys import enrolment
from keys.keyring import CHECKED, read_keyring
from pipeline.intake import keep_keyring
from postern.model import KeyStatus
from storage.ledger.enrolments import list_keys, revoke_key

pytest_plugins = ["support.databases"]


@pytest.fixture
def host(sqlite_url: str, tmp_path: Path) -> Iterator[Host]:
    """A host with the embedded default."""
    with host_on(sqlite_url, tmp_path / "home") as host:
        yield host


@pytest.fixture
async def keyring(host: Host) -> Any:
    """What the gate reads, kept true until the end of the test: the fingerprints of a campaign."""
    path = host.settings.gate_folder / "keyring.json"
    stop = asyncio.Event()
    keeping = asyncio.create_task(keep_keyring(host.intake(), stop))
    await until_async(path.exists, "the keyring")
    yield lambda campaign_id: [entry.fingerprint for entry in read_keyring(path).campaigns.get(campaign_id, ())]
    stop.set()
    await asyncio.wait_for(keeping, 10)


def new_public_key() -> bytes:
    return asyncssh.generate_private_key("ssh-ed25519").export_public_key()


Fingerprints = Callable[[str], list[str]]


async def test_an_enrolled_key_gets_into_the_keyring(host: Host, keyring: Fingerprints) -> None:
    """With all that the gate needs, beside those that are there."""
    expiry = NOW + timedelta(days=1)
    (key,) = enrolment.enrol(
        host.database,
        campaign_id=host.key.campaign_id,
        key_texts=[new_public_key()],
        email=OWNER,
        sources=["192.0.2.7"],
        expires_at=expiry,
        actor="operator",
        now=NOW,
    )
    await until_async(lambda: key.fingerprint in keyring(key.campaign_id), "the key")
    assert set(keyring(key.campaign_id)) == {host.key.fingerprint, key.fingerprint}
    entries = read_keyring(host.settings.gate_folder / "keyring.json").campaigns[key.campaign_id]
    (entry,) = [entry for entry in entries if entry.fingerprint == key.fingerprint]
    assert (entry.public_key, entry.enrolment_id) == (key.public_key, key.enrolment_id)
    assert (entry.sources, entry.expires_at) == (["192.0.2.7/32"], expiry.isoformat())


async def test_a_revoked_key_leaves_the_keyring(host: Host, keyring: Fingerprints) -> None:
    """Within a moment."""
    assert keyring(host.key.campaign_id) == [host.key.fingerprint]
    revoke_key(host.database, host.key.id, reason="lost", actor="operator", now=NOW)
    await until_async(lambda: keyring(host.key.campaign_id) == [], "the key to go", patience=5)


async def test_an_expired_key_leaves_the_keyring(host: Host, keyring: Fingerprints) -> None:
    """When its time has come, without anybody doing anything; the ledger says so."""
    key = enrol(host.database, add_campaign(host.database), expires_at=NOW + SECOND)
    await until_async(lambda: keyring(key.campaign_id) == [key.fingerprint], "the key")
    host.clock.advance(1)
    await until_async(lambda: keyring(key.campaign_id) == [], "the key to go", patience=5)
    assert list_keys(host.database, key_id=key.id)[0].status is KeyStatus.EXPIRED
    assert keyring(host.key.campaign_id) == [host.key.fingerprint]


async def was_checked(host: Host, home: Path) -> bool:
    """Whether the intake of another home says that its keyring is true."""
    settings = host.settings.model_copy(update={"home": home})
    stop = asyncio.Event()
    (home / "gate").mkdir(parents=True)
    keeping = asyncio.create_task(keep_keyring(host.intake(settings=settings), stop))
    await asyncio.wait([keeping], timeout=1.2)
    stop.set()
    await asyncio.wait_for(keeping, 10)
    return (settings.gate_folder / CHECKED).exists()


async def test_the_gates_host_is_told_that_its_keyring_is_true(host: Host, keyring: Fingerprints) -> None:
    """The keyring itself stays as it is, so that no gate reads it again."""
    path = host.settings.gate_folder / "keyring.json"
    before = path.stat()
    checked = host.settings.gate_folder / CHECKED
    await until_async(checked.exists, "the mark beside the keyring")
    assert checked.read_bytes() == b""
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


async def test_the_keyring_stays_while_the_database_is_away(
    postgresql: Cluster, postgresql_url: str, tmp_path: Path
) -> None:
    """Logins go on by what is known, and changes are made up for."""
    name = sa.make_url(postgresql_url).database
    with host_on(postgresql_url, tmp_path / "home") as host:
        path = host.settings.gate_folder / "keyring.json"
        stop = asyncio.Event()
        keeping = asyncio.create_task(keep_keyring(host.intake(), stop))
        await until_async(path.exists, "the keyring")
        before = path.read_bytes()
        postgresql.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        postgresql.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'")
        done, _pending = await asyncio.wait([keeping], timeout=1.2)
        assert (done, path.read_bytes()) == (set(), before)
        assert not await was_checked(host, tmp_path / "other")
        postgresql.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        key = enrol(host.database, add_campaign(host.database))
        await until_async(lambda: key.campaign_id in read_keyring(path).campaigns, "the new key")
        stop.set()
        await asyncio.wait_for(keeping, 10)
