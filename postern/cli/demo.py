"""`postern demo`: the main job on real input with real parts, from a fresh home to final statuses, in under a minute.

Everything here goes through the doors that users have: the `postern` command, the machine's own `ssh-keygen` and
`sftp`, the mails as files, the report over HTTP. Nothing is faked but the delivery, which is the simulator's.
"""

import csv
import email
import email.policy
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from postern.cli.output import console, print_table, refusals
from postern.errors import PosternError
from postern.running import announcement

_PATIENCE = 45.0  # seconds for anything to happen
_ROWS = 60
_FINAL = ("success", "failure")
_CAMPAIGN = """\
name: Passport collection
agency: Immigration Office
templates:
  english: "Dear {{recipient_name}}, your {{topic}} is ready. Please collect it within 14 days."
  chinese: "{{recipient_name}}您好，您的{{topic}}已准备好，请在14天内领取。"
rate: 20
"""
_BAD_FILE = """\
recipient,language,recipient_name,topic
6591234567,english,Emily Yeo,passport application #12345F
91234568,english,James Tan,passport application #67890A
+65 9123 4569,Englsh,Nurul Huda,passport application #13579B
6591234570,tamil,Priya Nair,passport application #24680C
6591234571,english,Ong “Ben” Keng,passport application – renewal
6591234572,english, Siti ,
6591234573,english,Goh Li Ting
"""

T = TypeVar("T")


def demo(
    keep: Annotated[Path | None, typer.Option("--home", help="Use this empty folder instead of a scratch one.")] = None,
) -> None:
    """See Postern work: a campaign, a key, a good and a bad file through the stock sftp client, and what each sees."""
    with refusals():
        missing = [tool for tool in ("sftp", "ssh-keygen") if shutil.which(tool) is None]
        if missing:
            raise PosternError(f"The demo needs {' and '.join(missing)}: install an OpenSSH client.")
        folder = keep or Path(tempfile.mkdtemp(prefix="postern-demo-"))
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise PosternError(f"{folder} is not empty.")
        _play(_Stage(folder=folder, started=time.monotonic()))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """Where the demo plays."""

    folder: Path
    started: float

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def environ(self) -> dict[str, str]:
        plain = {name: value for name, value in os.environ.items() if not name.startswith("POSTERN_")}
        return plain | {
            "POSTERN_HOME": str(self.home),
            "POSTERN_SFTP_HOST": "127.0.0.1",
            "POSTERN_SFTP_PORT": "0",
            "POSTERN_HTTP_PORT": "0",
        }


def _play(stage: _Stage) -> None:
    console.print(Panel.fit("[bold]Postern[/]: one [bold]sftp put[/] becomes a batch of SMS", border_style="cyan"))
    with _serving(stage) as (port, url):
        console.print(f"Postern runs: gate on port {port}, reports on {url}\n")
        campaign_id = _enrol(stage)
        _trust_host(stage, port)
        _until("the gate knows the key", lambda: _login_works(stage, campaign_id, port))
        _good_file(stage, campaign_id, port)
        _bad_file(stage, campaign_id, port)
    _where(stage)


def _enrol(stage: _Stage) -> str:
    _heading("1", "An operator creates a campaign and enrols a key")
    (stage.folder / "campaign.yaml").write_text(_CAMPAIGN, encoding="utf-8")
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "batch-job@agency", "-f", stage.folder / "key"],
        check=True,
    )
    campaign = _postern(stage, "campaign", "create", str(stage.folder / "campaign.yaml"))
    keys = _postern(
        stage, "key", "enrol", campaign["id"], str(stage.folder / "key.pub"), "--email", "owner@agency.example"
    )
    console.print(f"  {campaign['name']}, in {' and '.join(campaign['templates'])}: [bold]{campaign['id']}[/]")
    console.print(f"  {keys[0]['type']} {keys[0]['fingerprint']}, outcome mails to {keys[0]['email']}\n")
    return str(campaign["id"])


def _good_file(stage: _Stage, campaign_id: str, port: int) -> None:
    _heading("2", "A batch job puts a good file")
    _write_good_file(stage.folder / "recipients.csv")
    upload = _put(stage, campaign_id, port, "recipients.csv")
    mail = _until("the outcome mail", lambda: _mail_for(stage, upload["id"]))
    _show_mail(mail)
    _expect(upload["status"] == "accepted", "The good file was not accepted.")
    _heading("3", "The batch goes out, and each message is followed to its end")
    _watch_batch(stage, str(upload["batchId"]))


def _bad_file(stage: _Stage, campaign_id: str, port: int) -> None:
    _heading("4", "A batch job puts a file with errors: nothing is sent, and the owner is told why")
    (stage.folder / "mistakes.csv").write_text(_BAD_FILE, encoding="utf-8")
    upload = _put(stage, campaign_id, port, "mistakes.csv")
    mail = _until("the outcome mail", lambda: _mail_for(stage, upload["id"]))
    _show_mail(mail)
    _expect(upload["status"] == "rejected" and upload["batchId"] is None, "The bad file was not rejected.")
    _heading("5", "The report, fetched by its link")
    with urllib.request.urlopen(upload["reportURL"]) as answer:  # noqa: S310 - our own address
        report = answer.read().decode("utf-8-sig")
    (stage.folder / "report.csv").write_text(report, encoding="utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(report)))
    bad = [
        (row, record["recipient"], record["recipient_name"], record["Error Reason"])
        for row, record in enumerate(rows, start=2)
        if record["Error Reason"]
    ]
    print_table(("row", "recipient", "recipient_name", "Error Reason"), bad, empty="No bad rows?")
    _expect(len(bad) == upload["numRows"], "The report and the ledger do not agree.")
    console.print()


def _write_good_file(path: Path) -> None:
    chance = random.Random(1)  # noqa: S311 - names and numbers for a demo
    names = ["Emily Yeo", "James Tan", "Nurul Huda", "Priya Nair", "Ong Keng Hua", "Goh Li Ting"]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("recipient", "language", "recipient_name", "topic"))
        for row in range(_ROWS - 3):
            recipient = f"65{chance.choice('89')}{chance.randrange(10**7):07}"
            language, name = ("chinese", "陈伟明") if row % 3 == 0 else ("english", chance.choice(names))
            topic = "护照" if language == "chinese" else f"passport application #{chance.randrange(10**5):05}F"
            writer.writerow((recipient, language, name, topic))
        for recipient in ("6511111111", "6511112222", "6522222222"):  # the simulator fails these in known ways
            writer.writerow((recipient, "english", "Simulated Failure", "passport"))


@contextmanager
def _serving(stage: _Stage) -> Iterator[tuple[int, str]]:
    log = (stage.folder / "postern.log").open("wb")
    process = subprocess.Popen([*_command(), "serve"], env=stage.environ, stdout=log, stderr=log)
    run_folder = stage.home / "run"
    try:
        with console.status("Starting Postern in a scratch home"):
            _until(
                f"Postern to start (see {log.name})",
                lambda: (
                    process.poll() is None
                    and all(announcement(run_folder, role) for role in ("gate", "intake", "worker", "web"))
                ),
            )
        gate, web = announcement(run_folder, "gate"), announcement(run_folder, "web")
        assert gate is not None
        assert web is not None
        yield int(gate["port"]), f"http://127.0.0.1:{web['port']}"
    finally:
        with console.status("Stopping Postern in order"):
            process.send_signal(signal.SIGTERM)
            process.wait(_PATIENCE)
        log.close()


def _trust_host(stage: _Stage, port: int) -> None:
    lines = [f"[127.0.0.1]:{port} {key['publicKey']}" for key in _postern(stage, "host-key", "show", quiet=True)]
    (stage.folder / "known_hosts").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _sftp(stage: _Stage, campaign_id: str, port: int, batch: str) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [
        "sftp", "-b", "-", "-P", str(port), "-i", stage.folder / "key", "-F", "none", "-o", "IdentitiesOnly=yes",
        "-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={stage.folder / 'known_hosts'}",
        f"{campaign_id}@127.0.0.1",
    ]  # fmt: skip
    return subprocess.run(command, input=batch, capture_output=True, text=True, cwd=stage.folder, check=False)


def _login_works(stage: _Stage, campaign_id: str, port: int) -> bool:
    return _sftp(stage, campaign_id, port, "ls\n").returncode == 0


def _put(stage: _Stage, campaign_id: str, port: int, name: str) -> dict[str, Any]:
    """Put a file as a batch job does, show what it sees, and wait for the outcome."""
    console.print(f"  [dim]$[/] sftp -b - -P {port} -i key {campaign_id}@127.0.0.1")
    before = {upload["id"] for upload in _postern(stage, "upload", "list", quiet=True)}
    result = _sftp(stage, campaign_id, port, f"put {name}\n")
    for line in (result.stdout + result.stderr).strip().splitlines():
        console.print(f"    {line}", markup=False, style="dim")
    console.print(f"    exit status {result.returncode}\n", style="green" if result.returncode == 0 else "red")
    _expect(result.returncode == 0, "sftp did not succeed.")

    def outcome() -> dict[str, Any] | None:
        uploads = _postern(stage, "upload", "list", quiet=True)
        return next((found for found in uploads if found["id"] not in before and found["finishedAt"]), None)

    with console.status("Waiting for the outcome"):
        return _until("the outcome of the upload", outcome)


def _watch_batch(stage: _Stage, batch_id: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    console.print(f"  [dim]$[/] postern batch show {batch_id}")
    with Live(console=console, refresh_per_second=10, transient=False) as live:
        while True:
            batch = _postern(stage, "batch", "show", batch_id, quiet=True)
            counts: Mapping[str, int] = batch["messages"]
            live.update(_bar(counts, int(batch["total"])))
            if sum(counts.get(status, 0) for status in _FINAL) == batch["total"]:
                break
            _expect(time.monotonic() < deadline, "Not every message came to its end in time.")
    failed = _postern(stage, "message", "list", "--batch", batch_id, "--status", "failure", quiet=True)
    console.print()
    print_table(
        ("row", "recipient", "status", "error"),
        [
            (message["row"], message["recipient"], message["latestStatus"], message["messageAttempts"][-1]["errorCode"])
            for message in failed
        ],
        empty="No failures.",
    )
    console.print("  [dim]These three are the simulator's failing numbers. Delivery is SIMULATED: no SMS left.[/]\n")


def _bar(counts: Mapping[str, int], total: int) -> Table:
    colours = {"success": "green", "failure": "red", "sent": "cyan", "sending": "yellow", "enqueued": "bright_black"}
    bar = Text()
    for status, colour in colours.items():
        bar.append("█" * round(50 * counts.get(status, 0) / total), style=colour)
    legend = Text("  ").join(
        Text(f"{counts[status]} {status}", style=colour) for status, colour in colours.items() if status in counts
    )
    table = Table.grid(padding=(0, 2))
    table.add_row(Text("  ") + bar, legend)
    return table


def _mail_for(stage: _Stage, upload_id: str) -> EmailMessage | None:
    for path in (stage.home / "mail").glob(f"*{upload_id}*.eml"):
        return email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    return None


def _show_mail(mail: EmailMessage) -> None:
    body = mail.get_body(("plain",))
    assert body is not None
    head = [f"To: {mail['To']}", f"Subject: {mail['Subject']}", ""]
    console.print("  [blue]╭─ mail[/]")
    for line in [*head, *body.get_content().strip().splitlines()]:
        console.print(Text.assemble(("  │ ", "blue"), line))  # never wrapped: the JSON line is one line
    console.print("  [blue]╰─[/]\n")


def _where(stage: _Stage) -> None:
    _heading("6", "Where everything lies")
    for name, what in {
        "home/postern.db": "ledger and jobs",
        "home/mail": "the mails, to be opened with a mail program",
        "home/blobs": "uploads and reports",
        "home/gate": "host keys and the keyring",
        "postern.log": "the log of all roles",
    }.items():
        console.print(f"  {stage.folder / name}  [dim]{what}[/]")
    seconds = time.monotonic() - stage.started
    console.print(f"\n[green]✓[/] Done in {seconds:.0f} s. Start your own: [bold]postern serve[/]")


def _postern(stage: _Stage, *arguments: str, quiet: bool = False) -> Any:
    """Run a command as an operator would, and return its JSON."""
    if not quiet:
        console.print(f"  [dim]$[/] postern {' '.join(Path(part).name for part in arguments)}")
    result = subprocess.run(
        [*_command(), *arguments, "--json"], env=stage.environ, capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        raise PosternError(f"postern {' '.join(arguments)} failed: {result.stderr.strip()}")
    return json.loads(result.stdout)


def _command() -> list[str]:
    return [sys.executable, "-P", "-m", "postern"]


def _until(what: str, condition: Callable[[], T | None]) -> T:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise PosternError(f"Waited {_PATIENCE:g} s for {what}.")


def _expect(truth: bool, otherwise: str) -> None:
    if not truth:
        raise PosternError(otherwise)


def _heading(number: str, text: str) -> None:
    console.print(f"[bold cyan]{number}[/] [bold]{text}[/]")
