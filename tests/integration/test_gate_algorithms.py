"""What the gate offers, as ssh-audit sees it: the two policies, and the findings that are documented."""

import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from integration.gate_fixtures import Home, Outcome, make_home, run, running

from postern.settings import SshPolicy
from sftpd.seams import available_key_exchanges

DEPLOY = Path(__file__).parents[2] / "deploy" / "ssh-audit"


@pytest.fixture(params=SshPolicy)
async def home(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Home]:
    """A gate with each of the policies."""
    home = make_home(tmp_path)
    async with running(home, ssh_policy=request.param):
        yield home


@pytest.fixture
def policy(request: pytest.FixtureRequest, home: Home) -> SshPolicy:
    """The policy that the gate has."""
    return SshPolicy(request.node.callspec.params["home"])


async def ssh_audit(home: Home, *options: str) -> Outcome:
    """Run ssh-audit; it stands beside the Python that runs the tests."""
    places = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    program = shutil.which("ssh-audit", path=places)
    assert program, "ssh-audit is among the test dependencies"
    return await run(program, "--skip-rate-test", "-n", *options, f"127.0.0.1:{home.port}")


def documented() -> set[str]:
    """The algorithms that the README lists with a finding."""
    table = (DEPLOY / "README.md").read_text().partition("## What the audit still finds")[2]
    return set(re.findall(r"^\| `([^`]+)`", table, re.MULTILINE))


async def test_the_gate_is_as_its_policy_file_says(home: Home, policy: SshPolicy) -> None:
    """Nothing more and nothing less; liboqs would bring more."""
    if available_key_exchanges(["sntrup761x25519-sha512"]):
        text = (DEPLOY / f"{policy}.txt").read_text()
        more = "mlkem768x25519-sha256, sntrup761x25519-sha512, sntrup761x25519-sha512@openssh.com"
        path = home.file("policy.txt", text.replace("mlkem768x25519-sha256", more).encode())
    else:
        path = DEPLOY / f"{policy}.txt"
    outcome = await ssh_audit(home, "-P", str(path))
    assert outcome.status == 0, outcome.output


async def test_the_audit_finds_what_is_documented(home: Home, policy: SshPolicy) -> None:
    """Nothing at all in `strict`."""
    outcome = await ssh_audit(home, "-j")
    report = json.loads(outcome.output)
    found = {
        entry["algorithm"]
        for kind in ("kex", "key", "enc", "mac")
        for entry in report[kind]
        if entry["notes"].get("fail") or entry["notes"].get("warn")
    }
    assert found == (documented() if policy is SshPolicy.COMPATIBLE else set())
    assert (outcome.status == 0) is (policy is SshPolicy.STRICT)
    assert "kex-strict-s-v00@openssh.com" in {entry["algorithm"] for entry in report["kex"]}


async def test_a_post_quantum_exchange_is_there(home: Home) -> None:
    """In both policies, and it works."""
    async with home.connect(kex_algs=["mlkem768x25519-sha256"]) as connection, connection.start_sftp_client() as client:
        assert await client.listdir() == [".", ".."]
