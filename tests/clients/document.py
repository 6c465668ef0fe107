"""Writes docs/clients.md from a run of all clients through all cases: `python -m clients.document`.

It writes nothing unless every client is there and everything came as expected, so what the page says was seen.
"""

import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from clients.cases import CASES, IS_FULL, NAME, Ending, Task
from clients.catalogue import CLIENTS, Client, missing
from clients.gate import Gate, Login
from clients.matrix import Result, compile_programs, ending_of, environ_of, run_case, wrong
from clients.offers import KINDS, Offer, agreed, offer_of_client, offer_of_gate
from clients.orders import PROGRAMS, Order

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
AUDIT = PAGE.parents[1] / "deploy" / "ssh-audit" / "README.md"
AT_ONCE = 4  # clients
MARKS = {
    Ending.ACCEPTED: "✓",
    Ending.REFUSED: "✗",
    Ending.NOTHING: "–",
    Ending.PART: "½",
    Ending.EITHER: "–½",
}
ABSENT = {
    "WinSCP": "A Windows program. It puts larger files as `NAME.filepart`, renames them, and sets times afterwards.",
    "FileZilla": "A program with windows only; its `fzsftp` is made from psftp, which is in the table.",
    "sshj, Apache MINA SSHD": "Not packaged by Debian, PyPI or npm. sshj sets times afterwards.",
    "SSH.NET": "Not packaged by Debian, PyPI or npm.",
}
TEXT = """# Clients

Written by `make docs-clients` from a run of every client through every case on {system};
`make test` runs most of it again.

## How to put a file

Replace `KEY` by the private key's file, `KEY.PPK` by its PuTTY form (`puttygen KEY -o KEY.PPK`), `KEY.DROPBEAR` by
Dropbear's (`dropbearconvert openssh dropbear KEY KEY.DROPBEAR`), and `FINGERPRINT` by the one that
`postern host-key show` prints. OpenSSH's clients ask once for the host key or find it in `known_hosts`; lftp and curl
expect it there, and rclone checks it where `known_hosts_file` is given.

{commands}

Put a file under its own name, or under a temporary one (`recipients.csv.part`, `.filepart`, `.tmp` and others) and
rename it. Whoever reads nothing but the exit status reads enough: it is 0 when the file is accepted.

## What every client does

{matrix}

✓ accepted whole, exit status 0 · ✗ refused, no upload, another exit status · – no upload, another exit status ·
½ the client closed a half-sent file in good order, as if that were all · –½ nothing or a start of the file, by the
moment · empty: the client has no such thing

## Which clients were seen

{versions}

Not run here:

{absent}

## Which algorithms they agree on

With the gate's default policy, `compatible`; `deploy/ssh-audit` says what an audit finds in it. OpenSSH's clients are
offered AES-GCM alone where they have it: they would put it last, and it costs a quarter less of the gate's processor.

{algorithms}

What an audit finds fault with, and what would be if the gate left it out:

{faults}

## What a refusal reads like

The gate says why in the answer itself and on the channel's standard error; some clients print neither. The owner is
told by mail of a file that is too large and of a wrong name.

{refusals}
"""
Results = Mapping[tuple[str, str], Result]
Offers = Mapping[str, tuple[Offer, Offer]]  # a client's and the gate's, by the client's title


def matrix_table() -> list[str]:
    """What is expected of every client in every case."""
    rows = [
        [client.title, *("" if name in client.cannot else MARKS[ending_of(client, name)] for name in CASES)]
        for client in CLIENTS.values()
    ]
    return _table(["", *(case.title for case in CASES.values())], rows)


def command_lines() -> list[str]:
    """What the run used, without what only a test needs."""
    login = Login(
        host="HOST", port=22, user="CAMPAIGN_ID", folder=Path(), fingerprint="SHA256:FINGERPRINT", is_shown=True
    )
    lines = []
    for client in CLIENTS.values():
        run = client.order(login, Order(task=Task.PUT, local=NAME, name=NAME))
        program = next((Path(part).name for part in run.argv if PROGRAMS.name in Path(part).parts), "")
        if program or run.argv[0] == "java":
            link = f"tests/clients/programs/{program or 'Put.java'}"
            lines += [f"- {client.title}: [`{link}`](../{link})"]
        else:
            argv = [Path(run.argv[0]).name, *run.argv[1:]]
            typed = f" <<< {shlex.quote('; '.join(run.lines))}" if run.lines else ""
            lines += [f"- {client.title}: `{shlex.join(argv)}{typed}`"]
    return lines


def refusals(results: Results) -> list[str]:
    """What the users of each client read."""
    refused = [
        (key, name)
        for key, client in CLIENTS.items()
        for name in CASES
        if name not in client.cannot and ending_of(client, name) is Ending.REFUSED
    ]
    rows = [
        [
            CLIENTS[key].title,
            CASES[name].title,
            str(results[key, name].statuses[-1]),
            f"`{telling(results[key, name])}`",
        ]
        for key, name in refused
    ]
    return _table(["client", "case", "exit status", "what it prints"], rows)


def telling(result: Result) -> str:
    """The line of an output that says why; or else the last one that is not the middle of a trace."""
    lines = [re.sub(r"^[\d/]+ [\d:]+ ", "", line) for line in result.output.splitlines()]
    sentences = [case.sentence for case in CASES.values() if case.sentence]
    reasons = [line for line in lines if any(sentence in line for sentence in sentences)]
    heads = [line for line in lines if line == line.lstrip()]
    return (reasons or heads)[0 if reasons else -1].replace("`", "'").replace("|", "¦")


def versions() -> list[str]:
    """The clients that were seen, where they come from, and what to know of each."""
    rows = [[client.title, client.source, _version(client), client.remark] for client in CLIENTS.values()]
    return _table(["client", "from", "version", "to know"], rows)


def offers(gate: Gate) -> Offers:
    """What each client offers, and what the gate does to it."""
    heard = {client.title: offer_of_client(gate, client) for client in CLIENTS.values()}
    return {title: (offer, offer_of_gate(gate, offer)) for title, offer in heard.items()}


def algorithms(found: Offers) -> list[str]:
    """What each client and the gate choose."""
    return _table(["client", *KINDS], [[title, *agreed(*pair).values()] for title, pair in found.items()])


def faults(found: Offers) -> list[str]:
    """Who uses what an audit finds fault with, and who could not do without."""
    rows = []
    for algorithm in re.findall(r"^\| `([^`]+)`", AUDIT.read_text(encoding="utf-8"), re.MULTILINE):
        using = [title for title, pair in found.items() if algorithm in agreed(*pair).values()]
        lost = [title for title, pair in found.items() if "" in agreed(*pair, without=algorithm).values()]
        rows.append([f"`{algorithm}`", ", ".join(using) or "nobody", ", ".join(lost) or "nobody"])
    return _table(["algorithm", "chosen by", "without it nothing is left for"], rows)


def page(results: Results, found: Offers) -> str:
    """The whole page, with the algorithms of all offers."""
    system = re.search(r'PRETTY_NAME="(.*)"', Path("/etc/os-release").read_text())
    return TEXT.format(
        system=system[1] if system else sys.platform,
        commands="\n".join(command_lines()),
        matrix="\n".join(matrix_table()),
        versions="\n".join(versions()),
        algorithms="\n".join(algorithms(found)),
        faults="\n".join(faults(found)),
        absent="\n".join(f"- {name}: {why}" for name, why in ABSENT.items()),
        refusals="\n".join(refusals(results)),
    )


def main() -> int:
    """Run everything and write the page."""
    absent = [why for client in CLIENTS.values() if (why := missing(client))]
    if absent or not IS_FULL:
        print("\n".join(absent) or "Set POSTERN_CLIENTS_SIZE=full: the page is about the gate's own limit.")
        return 1
    cells = [(key, name) for key, client in CLIENTS.items() for name in CASES if name not in client.cannot]
    with tempfile.TemporaryDirectory(prefix="postern-clients-") as folder:
        gate = Gate(Path(folder))
        gate.prepare(len(cells) + len(CLIENTS))
        compile_programs(gate.folder)
        with gate.serving(), ThreadPoolExecutor(AT_ONCE) as pool:
            offered = offers(gate)
            found = pool.map(lambda cell: run_case(gate, CLIENTS[cell[0]], CASES[cell[1]]), cells)
            results = dict(zip(cells, found, strict=True))
    odd = [f"{key}, {name}: {what}" for key, name in cells for what in wrong(CLIENTS[key], name, results[key, name])]
    print(f"{len(cells)} cases, {len(odd)} not as expected")
    if odd:
        print("\n".join(odd))
        return 1
    PAGE.write_text(page(results, offered), encoding="utf-8")
    return 0


def _version(client: Client) -> str:
    run = subprocess.run(client.version, capture_output=True, text=True, env=environ_of(Path.home()), check=False)
    found = re.search(r"\d+(\.\d+)+\w*", run.stdout + run.stderr)
    assert found, f"{client.title} does not tell its version"
    return found[0]


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]


if __name__ == "__main__":
    sys.exit(main())
