"""Killed processes: nothing accepted is lost, no message is handed over twice."""

import json
import os
import signal
from pathlib import Path

from acceptance.installation import FINAL, ROLES, Installation, good_file, until

from postern.model import IdKind, derived_id

KILLS = int(os.environ.get("POSTERN_KILLS", "3"))


def _assert_all_is_well(postern: Installation, batch_id: str, rows: int) -> None:
    batch = postern.final_batch(batch_id)
    assert batch["total"] == rows
    assert sum(count for status, count in batch["messages"].items() if status in FINAL) == rows
    handovers = postern.handovers()
    assert max(handovers.values()) == 1, "a message was handed over twice"
    rows_in_doubt = postern.query('SELECT "row" FROM attempts WHERE inferred')
    unresolved = {derived_id(IdKind.MESSAGE, batch_id, str(row)) for (row,) in rows_in_doubt}
    delivered = set(handovers)
    # Only a message whose hand-over nobody can tell may be missing from the provider's journal.
    assert rows - len(delivered) <= len(unresolved)
    assert not delivered & unresolved, "a journalled hand-over was not found again"
    assert len(postern.postern("batch", "list")) == 1
    assert len({str(mail["Message-ID"]) for mail in postern.mails()}) == 1


def test_a_worker_killed_while_it_reads_a_file_leaves_one_outcome(postern: Installation) -> None:
    """kill -9 during validation, and again while the rows are written: one batch, one mail, nothing twice."""
    campaign_id, key = postern.enrolled(rate=5000)
    rows = 8_000
    postern.put(campaign_id, key, good_file(rows))
    until("validation to start", lambda: postern.query("SELECT 1 FROM uploads WHERE status = 'validating'"))
    postern.kill("worker")
    until("rows to be written", lambda: postern.query("SELECT 1 FROM batches WHERE status = 'messages_enqueuing'"))
    postern.kill("worker")
    upload = postern.outcome()
    assert upload["status"] == "accepted"
    _assert_all_is_well(postern, upload["batchId"], rows)


def test_a_worker_killed_in_the_middle_of_a_batch_sends_nothing_twice(postern: Installation) -> None:
    """kill -9, again and again, while messages leave."""
    campaign_id, key = postern.enrolled(rate=400)
    rows = 500 * (KILLS + 2)
    postern.put(campaign_id, key, good_file(rows))
    for reached in range(200, 200 + 500 * KILLS, 500):
        until(f"{reached} hand-overs", lambda wanted=reached: len(postern.handovers()) >= wanted or None)
        postern.kill("worker")
    upload = postern.outcome()
    _assert_all_is_well(postern, upload["batchId"], rows)
    in_doubt = postern.query("SELECT count(*) FROM attempts WHERE inferred")[0][0]
    assert in_doubt <= 100 * KILLS, "more messages in doubt than one slice a kill"
    print(f"{KILLS} kills, {rows} messages, {in_doubt} in doubt")


def test_an_upload_put_while_everything_behind_the_gate_is_dead_is_processed_later(postern: Installation) -> None:
    """The gate needs nobody to accept a file for a key that it knows."""
    campaign_id, key = postern.enrolled()
    stopped = [postern.pid(role) for role in ("intake", "worker", "web")]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    postern.put(campaign_id, key, good_file(5))
    assert len(list((postern.home / "spool" / "accepted").iterdir())) == 1
    for pid in stopped:
        os.kill(pid, signal.SIGKILL)
    upload = postern.outcome()
    assert postern.final_batch(upload["batchId"])["messages"] == {"success": 5}


def test_intake_killed_at_any_moment_takes_every_upload_in_once(postern: Installation) -> None:
    """Twelve uploads with a kill after every third: twelve uploads, twelve batches."""
    campaign_id, key = postern.enrolled()
    for number in range(12):
        postern.put(campaign_id, key, good_file(number + 1), f"file{number}.csv")
        if number % 3 == 0:
            postern.kill("intake")
    postern.outcome(12)
    assert sorted(batch["total"] for batch in postern.postern("batch", "list")) == list(range(1, 13))


def test_a_child_that_dies_comes_back(postern: Installation) -> None:
    """Every role, killed, runs again under another process id, and the whole still works."""
    campaign_id, key = postern.enrolled()
    for role in ROLES:
        dead = postern.kill(role)
        assert until(f"{role} to come back", lambda role=role: postern.announcement(role))["pid"] != dead
    postern.put(campaign_id, key, good_file(4))
    assert postern.final_batch(postern.outcome()["batchId"])["messages"] == {"success": 4}


def test_sigterm_stops_all_in_order_and_a_restart_finishes_the_batch(postern: Installation) -> None:
    """A stop in the middle of a batch drops nothing and hands nothing over twice."""
    campaign_id, key = postern.enrolled(rate=300)
    postern.put(campaign_id, key, good_file(1500))
    until("some hand-overs", lambda: len(postern.handovers()) > 100 or None)
    pids = [postern.pid(role) for role in ROLES]
    assert postern.stop() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    told = [json.loads(line) for line in postern.log.read_text().splitlines() if "child.stopped" in line]
    assert [line["child"] for line in told if line["role"] == "serve"] == list(ROLES)  # the gate has children, too
    before = len(postern.handovers())
    assert before < 1500
    postern.start()
    upload = postern.outcome()
    assert postern.final_batch(upload["batchId"])["messages"] == {"success": 1500}, "an orderly stop leaves no doubt"
    assert set(postern.handovers().values()) == {1}


def test_children_leave_when_their_supervisor_is_killed(postern: Installation) -> None:
    """kill -9 of `serve` leaves no process behind, and the next `serve` works."""
    campaign_id, key = postern.enrolled()
    pids = [postern.pid(role) for role in ROLES]
    assert postern.serve is not None
    postern.serve.kill()
    postern.serve.wait()
    until("the children to leave", lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    postern.start()
    postern.put(campaign_id, key, good_file(2))
    assert postern.outcome()["status"] == "accepted"
