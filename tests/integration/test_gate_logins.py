"""Who gets in, with which keys and algorithms, and to what."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import asyncssh
import pytest
from integration.gate_fixtures import Home, from_now, make_home, make_key, run, running, until
from structlog.testing import capture_logs

from keys.keyring import Keyring, write_keyring
from postern.model import IdKind, new_id


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    """A gate with one campaign and one key."""
    home = make_home(tmp_path)
    async with running(home):
        yield home


async def test_unknown_users_and_wrong_keys_are_told_the_same(home: Home) -> None:
    """Nobody learns which campaigns there are."""
    stranger = make_key(home.folder / "stranger")
    wrong_key = await home.sftp("ls", key=stranger)
    unknown_user = await home.sftp("ls", key=stranger, user=new_id(IdKind.CAMPAIGN))
    own_key_elsewhere = await home.sftp("ls", user=new_id(IdKind.CAMPAIGN))
    no_id = await home.sftp("ls", user="root")
    assert wrong_key.status != 0
    assert "Permission denied (publickey)" in wrong_key.output
    told = [outcome.output.partition("@")[2] for outcome in (wrong_key, unknown_user, own_key_elsewhere, no_id)]
    assert told == [told[0]] * 4


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
async def test_keys_of_all_kinds_get_in(home: Home, kind: str) -> None:
    """OpenSSH's own choice of signature is among ours."""
    key = make_key(home.folder / f"key-{kind}", kind)
    home.enrol(key)
    await home.refreshed()
    outcome = await home.sftp("ls", key=key)
    assert outcome.status == 0, outcome.output


@pytest.mark.parametrize("algorithm", ["rsa-sha2-256", "rsa-sha2-512"])
async def test_rsa_keys_sign_with_sha2(home: Home, algorithm: str) -> None:
    """Either of the two is taken."""
    key = make_key(home.folder / "rsa", "rsa")
    home.enrol(key)
    await home.refreshed()
    async with home.connect(client_keys=[str(key)], signature_algs=[algorithm]):
        pass


async def test_rsa_keys_do_not_sign_with_sha1(home: Home) -> None:
    """An enrolled key does not get in with an SHA-1 signature."""
    key = make_key(home.folder / "rsa", "rsa")
    home.enrol(key)
    await home.refreshed()
    pair = asyncssh.load_keypairs([str(key)])[0]
    pair.sig_algorithms = (b"ssh-rsa",)
    pair.set_sig_algorithm(b"ssh-rsa")
    with pytest.raises(asyncssh.PermissionDenied):
        async with home.connect(client_keys=[pair], signature_algs=["ssh-rsa"]):
            pass


async def test_two_keys_of_a_campaign_work_side_by_side(home: Home) -> None:
    """Keys are exchanged without a gap."""
    home.enrol(home.folder / "second")
    await home.refreshed()
    for key in (home.key, home.folder / "second"):
        assert (await home.sftp("ls", key=key)).status == 0


async def test_addresses_and_expiry_are_kept(home: Home) -> None:
    """A key from elsewhere and a key of yesterday get the same answer as a wrong one."""
    home.enrol(home.folder / "elsewhere", sources=("192.0.2.0/24",))
    home.enrol(home.folder / "here", sources=("192.0.2.0/24", "127.0.0.1"))
    home.enrol(home.folder / "expired", expires_at=from_now(timedelta(seconds=-1)))
    home.enrol(home.folder / "lasting", expires_at=from_now(timedelta(hours=1)))
    await home.refreshed()
    for name, gets_in in {"elsewhere": False, "here": True, "expired": False, "lasting": True}.items():
        outcome = await home.sftp("ls", key=home.folder / name)
        assert (outcome.status == 0) is gets_in, (name, outcome.output)


async def test_six_tries_are_enough(home: Home) -> None:
    """A client with many keys is sent away at the sixth wrong one."""
    strangers = [make_key(home.folder / f"stranger-{number}") for number in range(5)]
    async with home.connect(client_keys=[*map(str, strangers), str(home.key)]):
        pass
    strangers.append(make_key(home.folder / "stranger-5"))
    with pytest.raises(asyncssh.DisconnectError) as refused:
        async with home.connect(client_keys=[*map(str, strangers), str(home.key)]):
            pass
    assert "Too many authentication failures" in str(refused.value)


async def test_only_public_keys_are_offered(home: Home) -> None:
    """No password, no questions, no host-based login."""
    methods = await asyncssh.get_server_auth_methods("127.0.0.1", home.port, username=home.campaign_id, config=None)
    assert methods == ["publickey"]


@pytest.mark.parametrize("command", [[], ["id"], ["-tt"], ["-N", "-R", "0:127.0.0.1:1"], ["-s", "netconf"]])
async def test_there_is_nothing_but_sftp(home: Home, command: list[str]) -> None:
    """Shells, commands, terminals, tunnels and other subsystems are refused."""
    options = [option if option != "-P" else "-p" for option in home.login()]
    host = home.address()
    order = [host, "netconf"] if "-s" in command else [host, *[word for word in command if word == "id"]]
    flags = [word for word in command if word not in {"id", "netconf"}]
    outcome = await run("ssh", *options, "-o", "ExitOnForwardFailure=yes", *flags, *order)
    assert outcome.status != 0


async def test_tunnels_are_refused(home: Home) -> None:
    """Neither TCP nor UNIX sockets are reached through the gate."""
    async with home.connect() as connection:
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_connection("127.0.0.1", home.port)
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_unix_connection("/run/x.sock")
        with pytest.raises(asyncssh.ChannelListenError):
            await connection.forward_remote_port("127.0.0.1", 0, "127.0.0.1", home.port)


async def test_a_connection_has_few_sessions(home: Home) -> None:
    """Many sessions in one connection are refused, and are free again when they end."""
    async with home.connect() as connection:
        clients = [await connection.start_sftp_client() for _ in range(4)]
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.start_sftp_client()
        for client in clients:
            client.exit()
            await client.wait_closed()
        async with connection.start_sftp_client():
            pass


@pytest.mark.parametrize(
    "option",
    [
        {"encryption_algs": ["aes256-cbc"]},
        {"encryption_algs": ["chacha20-poly1305@openssh.com"]},
        {"kex_algs": ["diffie-hellman-group14-sha1"]},
        {"kex_algs": ["diffie-hellman-group1-sha1"]},
        {"kex_algs": ["diffie-hellman-group-exchange-sha256"]},
        {"mac_algs": ["hmac-sha1"], "encryption_algs": ["aes128-ctr"]},
        {"server_host_key_algs": ["ssh-rsa"]},
        {"compression_algs": ["zlib@openssh.com"]},
    ],
)
async def test_weak_algorithms_are_not_offered(home: Home, option: dict[str, list[str]]) -> None:
    """No SHA-1, no CBC, no small groups, no compression."""
    with pytest.raises(asyncssh.KeyExchangeFailed):
        async with home.connect(**option):
            pass


@pytest.mark.parametrize(
    "option",
    [
        {"kex_algs": ["curve25519-sha256"]},
        {"kex_algs": ["mlkem768x25519-sha256"]},
        {"kex_algs": ["ecdh-sha2-nistp256"], "server_host_key_algs": ["ecdsa-sha2-nistp256"]},
        {"kex_algs": ["diffie-hellman-group14-sha256"], "server_host_key_algs": ["rsa-sha2-256"]},
        {"kex_algs": ["diffie-hellman-group16-sha512"], "server_host_key_algs": ["rsa-sha2-512"]},
        {"encryption_algs": ["aes256-ctr"], "mac_algs": ["hmac-sha2-256"]},
        {"encryption_algs": ["aes256-gcm@openssh.com"]},
    ],
)
@pytest.mark.filterwarnings("ignore:Diffie-Hellman over finite fields")  # old clients have nothing else
async def test_what_clients_need_is_offered(home: Home, option: dict[str, list[str]]) -> None:
    """Old and new clients find something in common with the gate."""
    async with home.connect(**option) as connection, connection.start_sftp_client() as client:
        assert await client.realpath(".") == "/"


async def test_handshakes_at_once_may_use_different_signatures(home: Home) -> None:
    """An RSA host key signs for many clients together, each as negotiated."""

    async def log_in(algorithm: str) -> None:
        async with home.connect(server_host_key_algs=[algorithm]):
            pass

    await asyncio.gather(*(log_in(name) for name in ["rsa-sha2-256", "rsa-sha2-512"] * 8))


async def test_a_revoked_key_ends_its_sessions(home: Home) -> None:
    """Within two seconds, with what was being written gone; other keys of the campaign stay."""
    home.enrol(home.folder / "second")
    await home.refreshed()
    async with home.connect() as first, home.connect(client_keys=[str(home.folder / "second")]) as second:
        client = await first.start_sftp_client()
        file = await client.open("x.csv", "w")
        await file.write("recipient,language\n")
        home.entries[home.campaign_id] = home.entries[home.campaign_id][1:]
        home.write_keyring()
        await asyncio.wait_for(first.wait_closed(), 2)
        await until(lambda: not home.unfinished())
        async with second.start_sftp_client() as other:
            assert await other.listdir() == [".", ".."]
    assert home.accepted() == []
    assert (await home.sftp("ls")).status != 0


async def test_a_key_that_expires_ends_its_sessions(home: Home) -> None:
    """A session does not outlive its key."""
    home.enrol(home.folder / "short", expires_at=from_now(timedelta(seconds=1.5)))
    await home.refreshed()
    async with home.connect(client_keys=[str(home.folder / "short")]) as connection:
        await asyncio.wait_for(connection.wait_closed(), 4)


async def test_a_broken_keyring_keeps_the_gate_open(home: Home) -> None:
    """The keys that are known go on working until there is a better snapshot."""
    path = home.settings.gate_folder / "keyring.json"
    async with home.connect() as connection:
        with capture_logs() as lines:
            path.write_text("{")
            await until(lambda: any(line["event"] == "keyring.unreadable" for line in lines))
        assert not connection.is_closed()
        assert (await home.sftp("ls")).status == 0
        write_keyring(path, Keyring())
        await asyncio.wait_for(connection.wait_closed(), 2)


async def test_a_silent_dial_is_ended(tmp_path: Path) -> None:
    """Who does not log in in time is sent away."""
    home = make_home(tmp_path)
    async with running(home, login_timeout=0.3):
        reader, writer = await asyncio.open_connection("127.0.0.1", home.port)
        banner = await asyncio.wait_for(reader.read(), 5)
        assert banner.startswith(b"SSH-2.0-Postern\r\n")
        writer.close()
        await writer.wait_closed()


async def test_an_idle_client_is_ended(tmp_path: Path) -> None:
    """Who is logged in and silent is sent away, with what it left unfinished."""
    home = make_home(tmp_path)
    async with running(home, idle_timeout=0.5), home.connect() as connection:
        client = await connection.start_sftp_client()
        await client.open("x.csv", "w")
        assert home.unfinished()
        await asyncio.wait_for(connection.wait_closed(), 5)
        await until(lambda: not home.unfinished())
