"""How each client is asked for each task: command lines, and what is typed into them. Pure.

They are the ones that the documentation recommends: it shows what these functions make, with placeholders for the
values. What only a test needs, such as a known_hosts file of its own, is left out there.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from clients.cases import Task
from clients.gate import Login

PROGRAMS = Path(__file__).parent / "programs"
JSCH = Path("/usr/share/java/jsch.jar")
CLASSES = "classes"  # where our Java program lies, compiled, in the gate's folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One thing to do: which file, under which names."""

    task: Task
    local: str
    name: str
    folder: str = ""
    partial: str = ""

    @property
    def remote(self) -> str:
        """The path on the server."""
        return f"{self.folder}/{self.name}" if self.folder else self.name

    @property
    def target(self) -> str:
        """What to tell a client that can keep the file's name: nothing, a folder, or another name."""
        is_kept = Path(self.local).name == self.name
        return f"{self.folder}/" if self.folder else "" if is_kept else self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A command line, and what is typed or piped into it."""

    argv: list[str]
    lines: list[str] = field(default_factory=list)


def openssh(login: Login, *options: str) -> list[str]:
    """The options that OpenSSH's sftp and scp share."""
    isolation = [
        *("-F", "none", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"),
        *("-o", f"UserKnownHostsFile={login.known_hosts}", "-o", "GlobalKnownHostsFile=none"),
        *("-P", str(login.port)),
    ]
    return [*([] if login.is_shown else isolation), *options, "-i", login.key()]


def sftp_lines(order: Order) -> list[str]:
    """The commands of OpenSSH's sftp; psftp knows `put`, `reput` and, as `ren`, `rename`."""
    put = {Task.TIMES: "put -p", Task.SYNC: "put -f", Task.RESUME: "reput"}.get(order.task, "put")
    if order.task is Task.RENAME:
        return [f"put {order.local} {order.partial}", f"rename {order.partial} {order.name}"]
    return [f"{put} {order.local} {order.target}".rstrip()]


def sftp(login: Login, order: Order) -> Run:
    return Run(argv=["sftp", *openssh(login, "-b", "-"), login.address], lines=sftp_lines(order))


def dbclient(login: Login, order: Order) -> Run:
    """OpenSSH's sftp, with Dropbear's client instead of ssh."""
    port = [] if login.is_shown else ["-p", str(login.port), "-y", "-y"]
    connect = ["dbclient", "-i", login.key("key.dropbear"), *port, "-s", login.address, "sftp"]
    return Run(argv=["sftp", "-b", "-", "-D", " ".join(connect)], lines=sftp_lines(order))


def scp(login: Login, order: Order) -> Run:
    options = {Task.TIMES: ["-p"], Task.OLD_SCP: ["-O"]}.get(order.task, [])
    return Run(argv=["scp", *openssh(login, *options), order.local, f"{login.address}:{order.target}"])


def curl(login: Login, order: Order) -> Run:
    port = "" if login.is_shown else f":{login.port}"
    url = f"sftp://{login.host}{port}/{order.partial or order.target}"
    extra = {
        Task.RENAME: ["-Q", f"-rename {order.partial} {order.name}"],
        Task.RESUME: ["-C", "-"],
    }.get(order.task, [])
    key = ["--key", login.key(), "--pubkey", f"{login.key()}.pub"]
    return Run(argv=["curl", "-sS", "-u", f"{login.user}:", *key, *extra, "-T", order.local, url])


def lftp(login: Login, order: Order) -> Run:
    ssh = ["ssh", "-a", "-x", "-i", login.key()]
    if not login.is_shown:
        ssh += ["-F", "none", "-o", "IdentitiesOnly=yes", "-o", f"UserKnownHostsFile={login.known_hosts}"]
    port = "" if login.is_shown else f" -p {login.port}"
    folder = f"-O {order.folder} " if order.folder else ""
    name = f" -o {order.partial}" if order.partial else ""
    resume = "-c " if order.task is Task.RESUME else ""
    lines = [
        "set cmd:fail-exit yes; set net:max-retries 1",
        f'set sftp:connect-program "{" ".join(ssh)}"',
        f"open{port} -u {login.user}, sftp://{login.host}",
        f"put {resume}{folder}{order.local}{name}",
        *([f"mv {order.partial} {order.name}"] if order.task is Task.RENAME else []),
    ]
    return Run(argv=["lftp", "--norc", "-c", "; ".join(lines)])


def putty(login: Login, *options: str) -> list[str]:
    """The options that psftp and pscp share."""
    port = [] if login.is_shown else ["-P", str(login.port)]
    return ["-batch", *port, *options, "-hostkey", login.fingerprint, "-i", login.key("key.ppk")]


def psftp(login: Login, order: Order) -> Run:
    """psftp takes `upload/` for a file's name, so a folder needs the whole path."""
    whole = replace(order, name=order.remote, folder="")
    return Run(argv=["psftp", *putty(login, "-b", "/dev/stdin"), login.address], lines=sftp_lines(whole))


def pscp(login: Login, order: Order) -> Run:
    options = {Task.TIMES: ["-p"], Task.OLD_SCP: ["-scp"]}.get(order.task, ["-sftp"])
    return Run(argv=["pscp", *putty(login, *options), order.local, f"{login.address}:{order.target}"])


def rclone(program: str) -> Callable[[Login, Order], Run]:
    """Of either version; from 1.63 on it puts under a temporary name by itself."""

    def order_of(login: Login, order: Order) -> Run:
        remote = f":sftp,host={login.host},user={login.user},key_file={login.key()}"
        if not login.is_shown:
            remote += f",port={login.port},known_hosts_file={login.known_hosts}"
        isolation = [] if login.is_shown else ["--config", "/dev/null"]
        options = ["--retries", "1", "--ignore-times", *isolation]
        return Run(argv=[program, "copyto", *options, order.local, f"{remote}:{order.remote}"])

    return order_of


def ours(*program: str, key: str = "key", by_fingerprint: bool = False) -> Callable[[Login, Order], Run]:
    """A program of ours that uses a library as people use it."""

    def order_of(login: Login, order: Order) -> Run:
        known = login.fingerprint if by_fingerprint else str(login.known_hosts)
        first = order.partial or order.remote
        final = [order.remote] if order.task is Task.RENAME else []
        place = [login.host, str(login.port), login.user, login.key(key), known]
        return Run(argv=[*program, *place, order.task, order.local, first, *final])

    return order_of


def jsch(login: Login, order: Order) -> Run:
    """JSch 0.1.54 reads no Ed25519 key and no key in OpenSSH's own form."""
    return ours("java", "-cp", f"{JSCH}:{login.folder / CLASSES}", "Put", key="key.pem")(login, order)
