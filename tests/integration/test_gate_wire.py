"""What the gate does with SSH's own packets: the cipher that OpenSSH gets, and keys that are exchanged in mid-file."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from integration.gate_fixtures import Home, make_home, run, running

LARGE = b"recipient,language\n" + b"6599999999,english\n" * 200_000
OPENSSH = b"SSH-2.0-OpenSSH_9.9\r\n"


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    """A gate with one campaign."""
    home = make_home(tmp_path)
    async with running(home):
        yield home


async def negotiated(home: Home, *options: str) -> tuple[int, str]:
    """The exit status of a stock client that puts a file, and the cipher that it sent with."""
    home.file("cipher.csv")
    outcome = await run(
        *("sftp", "-b", "-", "-o", "LogLevel=DEBUG2", *options, *home.login(), home.address()),
        input_text=f"put {home.folder / 'cipher.csv'}\n",
    )
    found = re.search(r"kex: client->server cipher: (\S+)", outcome.output)
    return outcome.status, found[1] if found else ""


@pytest.mark.parametrize(
    ("options", "cipher"),
    [
        ((), "aes128-gcm@openssh.com"),
        (("-c", "aes256-ctr,aes256-gcm@openssh.com"), "aes256-gcm@openssh.com"),
        (("-c", "aes256-ctr"), "aes256-ctr"),
        (("-c", "aes192-ctr,aes128-ctr"), "aes192-ctr"),
    ],
)
async def test_openssh_gets_gcm_where_it_has_it(home: Home, options: tuple[str, ...], cipher: str) -> None:
    """Whatever it would prefer; a client that lacks it keeps its own order."""
    assert await negotiated(home, *options) == (0, cipher)


async def test_other_clients_keep_their_order(home: Home) -> None:
    """Nothing is held back from them, and nothing kept from them."""
    ciphers = ["aes192-ctr", "aes128-gcm@openssh.com"]
    async with home.connect(encryption_algs=ciphers) as connection:
        assert connection.get_extra_info("recv_cipher") == "aes192-ctr"


async def test_who_waits_under_the_name_of_openssh_gets_the_whole_offer(home: Home) -> None:
    """Both sides may wait for the other's list; the gate gives in."""
    reader, writer = await asyncio.open_connection("127.0.0.1", home.port)
    writer.write(OPENSSH)
    assert (await reader.readline()).startswith(b"SSH-2.0-")
    offer = await asyncio.wait_for(reader.readexactly(600), 10)
    writer.close()
    await writer.wait_closed()
    assert b"aes128-gcm@openssh.com" in offer
    assert b"aes128-ctr" in offer


async def test_a_client_without_a_common_cipher_is_told_so(home: Home) -> None:
    """And not left waiting."""
    outcome = await home.sftp("pwd", options=("-c", "chacha20-poly1305@openssh.com", "-o", "LogLevel=INFO"))
    assert outcome.status
    assert "no matching cipher found" in outcome.output


@pytest.mark.parametrize("cipher", ["aes128-gcm@openssh.com", "aes128-ctr"])
async def test_keys_are_exchanged_again_in_mid_file(home: Home, cipher: str) -> None:
    """Sixty times in a file, asked for by the client, and not a byte is lost."""
    path = home.file("rekeyed.csv", LARGE)
    options = ("-c", cipher, "-o", "RekeyLimit=64K", "-o", "LogLevel=DEBUG1")
    outcome = await run("sftp", "-b", "-", *options, *home.login(), home.address(), input_text=f"put {path}\n")
    assert outcome.status == 0, outcome.output
    assert outcome.output.count("SSH2_MSG_NEWKEYS received") > 10
    assert [content for _sidecar, content in home.accepted()] == [LARGE]
