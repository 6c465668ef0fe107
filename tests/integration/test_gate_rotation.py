"""Host keys are replaced, and OpenSSH's client follows without a question."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest
from integration.gate_fixtures import Home, Outcome, make_home, postern, run, running

from sftpd.hostkeys import begin_rotation, describe_host_keys
from sftpd.seams import host_key_pairs


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    """A gate, and a client's file of known hosts with its Ed25519 key."""
    home = make_home(tmp_path)
    async with running(home):
        know(home, "ssh-ed25519")
        yield home


def know(home: Home, kind: str) -> None:
    """Let the client know one key of the gate."""
    (line,) = [key.public_line for key in describe_host_keys(folder(home)) if (key.type, key.state) == (kind, "used")]
    known(home).write_text(f"[127.0.0.1]:{home.port} {line}\n")


def folder(home: Home) -> Path:
    return home.settings.host_key_folder


def known(home: Home) -> Path:
    return home.folder / "known_hosts"


def known_keys(home: Home) -> set[str]:
    return {" ".join(line.split()[1:3]) for line in known(home).read_text().splitlines()}


def keys(home: Home, *states: str) -> set[str]:
    return {key.public_line for key in describe_host_keys(folder(home)) if key.state in states}


async def strict_put(home: Home, *options: str) -> Outcome:
    """A put by a client that trusts only the keys that it knows, and learns new ones."""
    batch = home.file("batch", f"put {home.file('x.csv')}\n".encode())
    return await run(
        *("sftp", "-b", str(batch), "-F", "/dev/null", "-P", str(home.port), "-i", str(home.key)),
        *("-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes", "-o", "UpdateHostKeys=yes"),
        *("-o", f"UserKnownHostsFile={known(home)}", "-o", "GlobalKnownHostsFile=/dev/null", *options, home.address()),
    )


async def shown(home: Home) -> str:
    """The Ed25519 key that the gate signs with."""
    key = await asyncssh.get_server_host_key("127.0.0.1", home.port, server_host_key_algs=["ssh-ed25519"], config=None)
    assert key is not None
    return key.get_fingerprint()


async def test_a_client_learns_all_keys_at_its_first_login(home: Home) -> None:
    """The gate announces them, and proves that it has them."""
    outcome = await strict_put(home)
    assert outcome.status == 0, outcome.output
    assert known_keys(home) == keys(home, "used")


@pytest.mark.parametrize("algorithm", ["rsa-sha2-256", "rsa-sha2-512", "ecdsa-sha2-nistp256"])
async def test_the_proof_is_made_with_the_algorithm_of_the_login(home: Home, algorithm: str) -> None:
    """OpenSSH checks that for RSA."""
    know(home, "ssh-rsa" if algorithm.startswith("rsa") else algorithm)
    begin_rotation(folder(home))
    others = [other for other in ("ssh-ed25519", "rsa-sha2-512", "ecdsa-sha2-nistp256") if other[:3] != algorithm[:3]]
    accepted = ",".join([algorithm, *others])  # in this order, and nothing of a type that is not in it is learnt
    await learnt(home, keys(home, "used", "next"), "-o", f"HostKeyAlgorithms={accepted}")


async def test_a_rotation_needs_no_hand_at_the_client(home: Home) -> None:
    """Old and new are known while both are announced; later the old ones are forgotten, and nobody was asked."""
    told = await postern(home, "host-key", "rotate")
    used, coming = ({key["publicKey"] for key in told if key["state"] == state} for state in ("used", "next"))
    await learnt(home, used | coming)
    old = await shown(home)
    told = await postern(home, "host-key", "rotate", "--finish")
    assert {(key["publicKey"], key["state"]) for key in told} == {(key, "used") for key in coming}
    await learnt(home, coming)
    assert await shown(home) != old


async def test_a_rotation_that_is_cancelled_leaves_the_old_keys(home: Home) -> None:
    """The client forgets the next ones again; and there is nothing more to cancel."""
    begin_rotation(folder(home))
    await learnt(home, keys(home, "used", "next"))
    await postern(home, "host-key", "rotate", "--cancel")
    await learnt(home, keys(home, "used"))
    outcome = await run(
        *(sys.executable, "-m", "postern", "host-key", "rotate", "--cancel"),
        POSTERN_HOME=str(home.settings.home),
    )
    assert outcome.status == 1
    assert "No rotation is under way" in outcome.output


async def learnt(home: Home, expected: set[str], *options: str) -> None:
    """Log in until the client knows just these keys: the gate looks at its own every now and then."""
    for _ in range(20):
        outcome = await strict_put(home, *options)
        assert outcome.status == 0, outcome.output
        if known_keys(home) == expected:
            return
    assert known_keys(home) == expected


def test_what_is_announced_can_be_proved(tmp_path: Path) -> None:
    """Each pair signs with the algorithm that it stands for."""
    home = make_home(tmp_path)
    used = [asyncssh.read_private_key(path) for path in sorted(folder(home).glob("ssh_host_*_key"))]
    for pair in host_key_pairs(used):
        assert [pair.sig_algorithm] == list(pair.host_key_algorithms)
