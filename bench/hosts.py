"""Many hosts on one machine: what they take in a second, beside the embedded default, and that nothing is done twice.

    python -P bench/hosts.py [--uploads 200] [--rows 50] [--json FILE]

Two gate hosts with an intake each, three workers and two webs, each in a home and an environment of its own, on one
PostgreSQL and one stand-in for S3 (moto, in a process of its own); then `postern serve` with SQLite and folders. Both
get the same files from stock `sftp` clients, sixteen at once. Prints a table in Markdown. It never fails because
something was slow, but does where an upload, a message or a mail is lost or comes twice.
"""

import argparse
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit
from urllib.request import urlopen

sys.path += [str(Path(__file__).resolve().parents[1] / folder) for folder in ("", "tests")]  # -P leaves them out

from support.hosts import PATIENCE, Part, Site, Surroundings, embedded, many_hosts, wait_for
from support.zeros import File, check, count_outcomes, is_all_done, make_files

from bench.gate_processes import cpu_seconds, descendants, peak
from bench.postgresql import find_binaries, postgresql

_CLIENTS = 16  # at once
_CAMPAIGNS = 4
_ONE_BAD_IN = 5
_RATE = 5_000  # messages a second and campaign, so that it is the machine that is measured
_OUTCOMES = 600.0  # seconds
_LOOK = 0.2  # seconds
_BUCKET = "postern-bench"
_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "postern-bench",
    "AWS_SECRET_ACCESS_KEY": "not-a-secret",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",  # nothing is asked of the machine's cloud
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}

Table = list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was seen of one installation."""

    figures: Table
    roles: Table
    sessions: Table


def main() -> None:
    """Measure and print."""
    options = _options()
    binaries = find_binaries()
    missing = [name for name in ("moto", "flask", "flask_cors", "psycopg") if find_spec(name) is None]
    if missing:
        print(f"Many hosts are not measured: install Postern's extras `bench` and `postgresql` ({', '.join(missing)}).")
        return
    if binaries is None:
        print("Many hosts are not measured: PostgreSQL is not installed (Debian: postgresql).")
        return
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} at the start, "
          f"{options.uploads} uploads of {options.rows} rows, one bad in {_ONE_BAD_IN}, "
          f"{_CLIENTS} stock clients at once.")  # fmt: skip
    found: dict[str, Found] = {}
    with tempfile.TemporaryDirectory(prefix="postern-bench-") as name:
        folder = Path(name)
        with postgresql(binaries) as url, _s3(folder) as store:
            reached = Surroundings(
                database_url=url, blob_url=f"s3://{_BUCKET}/blobs", s3_endpoint=store, s3_credentials=_CREDENTIALS
            )
            found["many hosts"] = _measured(many_hosts(_made(folder / "many"), reached), options)
        found["embedded default"] = _measured(embedded(_made(folder / "one")), options)
    for title, one in found.items():
        for table in (one.figures, one.roles, one.sessions):
            _print(title, table)
    if options.json:
        figures = {title: {"figures": one.figures, "roles": one.roles} for title, one in found.items()}
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uploads", type=int, default=200, help="how many files are put on each")
    parser.add_argument("--rows", type=int, default=50, help="of each file")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    return parser.parse_args()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@contextmanager
def _s3(folder: Path) -> Iterator[str]:
    """A stand-in for S3 with a bucket; yields its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-P", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (folder / "s3.log").open("wb") as log:
        server = subprocess.Popen(command, env={**os.environ, **_CREDENTIALS}, stdout=log, stderr=log)
    try:
        wait_for("the stand-in for S3", lambda: _answers(port))
        import boto3  # noqa: PLC0415 - takes a second; not for `--help`

        session = boto3.session.Session(
            aws_access_key_id=_CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=_CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            region_name=_CREDENTIALS["AWS_REGION"],
        )
        session.client("s3", endpoint_url=f"http://127.0.0.1:{port}").create_bucket(Bucket=_BUCKET)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(PATIENCE)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _measured(site: Site, options: argparse.Namespace) -> Found:
    """Put all files, wait for everything that comes of them, and hold it against what was put."""
    with site.running():
        campaigns = [site.enrolled(f"bench-{number}", rate=_RATE) for number in range(_CAMPAIGNS)]
        files = make_files(site.folder / "files", campaigns, options.uploads, rows=options.rows, one_bad_in=_ONE_BAD_IN)
        before = _cpu(site)
        clients = resource.getrusage(resource.RUSAGE_CHILDREN)
        with _Sessions(site) as sessions:
            start = time.perf_counter()
            _put_all(site, files)
            answered = time.perf_counter() - start
            wait_for("every outcome", lambda: count_outcomes(site, files) == len(files), _OUTCOMES)
            judged = time.perf_counter() - start
            wait_for("every message's end and every mail", lambda: is_all_done(site, files), _OUTCOMES)
            done = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        check(site, files, _mails(site))
        links = _follow_links(site)
        messages = sum(len(file.recipients) for file in files if not file.is_bad)
        figures = [
            {"figure": "uploads a second, until all were answered OK", "value": round(len(files) / answered, 1)},
            {"figure": "uploads a second, until all had their outcome", "value": round(len(files) / judged, 1)},
            {"figure": "seconds until then", "value": round(judged, 1)},
            {"figure": "seconds until all messages were final, and mailed", "value": round(done, 1)},
            {"figure": "messages, each handed over once", "value": messages},
            {"figure": "mails, one each", "value": len(files)},
            {"figure": "links to reports followed, over all webs", "value": links},
            {"figure": "uploads judged, by worker", "value": _judged(site)},
            {
                "figure": "CPU seconds of the clients",
                "value": round(after.ru_utime + after.ru_stime - clients.ru_utime - clients.ru_stime, 1),
            },
        ]
        return Found(figures=figures, roles=_roles(site, before), sessions=sessions.table())


def _put_all(site: Site, files: Sequence[File]) -> None:
    """Every client of all that run at once puts one file, at the gates in turn."""
    gates = site.of("gate")
    with ThreadPoolExecutor(_CLIENTS) as pool:
        putting = [
            pool.submit(site.put, gates[number // _CAMPAIGNS % len(gates)], file.campaign_id, file.path)
            for number, file in enumerate(files)
        ]
        for one in putting:
            one.result()


def _mails(site: Site) -> Counter[str]:
    """How often each mail lies in the workers' folders."""
    return Counter(path.name for folder in site.mail_folders() for path in folder.glob("*.eml"))


def _judged(site: Site) -> str:
    logs = [part.log.read_text(encoding="utf-8", errors="replace") for part in site.of("worker")]
    return " / ".join(str(log.count('"upload.judged"')) for log in logs)


def _follow_links(site: Site) -> int:
    """Every link to a report, on every web; returns how many were followed."""
    followed = 0
    for (url,) in site.query("SELECT report_url FROM uploads WHERE status = 'rejected'"):
        path = urlsplit(url)
        for web in site.of("web"):
            with urlopen(f"http://127.0.0.1:{web.port('web')}{path.path}?{path.query}", timeout=PATIENCE) as answer:
                if b"Error Reason" not in answer.read():
                    raise AssertionError(f"{web.name} has no report at {path.path}")
            followed += 1
    return followed


def _pids(site: Site) -> dict[str, list[int]]:
    """The processes of each role."""
    found: dict[str, list[int]] = {}
    for part in site.parts:
        for role in ("gate", "intake", "worker", "web") if part.role == "serve" else (part.role,):
            found.setdefault(role, []).append(_pid(part, role))
        if part.role == "serve":
            found["supervisor"] = [part.pid]
    return found


def _pid(part: Part, role: str) -> int:
    return int(wait_for(f"{part.name} to be ready", lambda: part.said(role))["pid"])


def _cpu(site: Site) -> dict[int, float]:
    """CPU seconds of each process so far; with its children, but for the supervisor, whose children are the roles."""
    return {
        pid: sum(cpu_seconds(each) for each in (pid, *(descendants(pid) if role != "supervisor" else ())))
        for role, pids in _pids(site).items()
        for pid in pids
    }


def _roles(site: Site, before: dict[int, float]) -> Table:
    after = _cpu(site)
    return [
        {
            "role": role,
            "processes": len(pids),
            "CPU seconds": round(sum(after[pid] - before[pid] for pid in pids), 1),
            "peak RSS of the largest, MiB": round(max(peak(pid) for pid in pids)),
            "of a child, MiB": round(max((peak(child) for pid in pids for child in descendants(pid)), default=0))
            if role != "supervisor"
            else 0,
        }
        for role, pids in _pids(site).items()
    ]


class _Sessions:
    """How many sessions each part has at PostgreSQL, at most."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._most: Counter[str] = Counter()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        if not self._site.database_url.startswith("sqlite"):
            self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._done.set()
        if self._thread.ident is not None:
            self._thread.join()

    def table(self) -> Table:
        """By role: the most of one process."""
        most: Counter[str] = Counter()
        for name, count in self._most.items():
            role = name.rpartition("-")[0] or name
            most[role] = max(most[role], count)
        return [{"sessions at PostgreSQL, at most": name, "count": count} for name, count in sorted(most.items())]

    def _watch(self) -> None:
        statement = (
            "SELECT application_name, count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' "
            "AND pid <> pg_backend_pid() GROUP BY application_name"
        )
        while not self._done.wait(_LOOK):
            now = {name: count for name, count in self._site.query(statement) if name}
            for name, count in {**now, "all together": sum(now.values())}.items():
                self._most[name] = max(self._most[name], count)


def _print(title: str, table: Table) -> None:
    if not table:
        return
    names = list(table[0])
    print(f"\n### {title}\n\n| {' | '.join(names)} |\n|{'---|' * len(names)}")
    for row in table:
        print(f"| {' | '.join(f'{cell:,}' if isinstance(cell, int | float) else cell for cell in row.values())} |")


if __name__ == "__main__":
    main()
