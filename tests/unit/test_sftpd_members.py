"""The spool as one of several processes of a gate uses it."""

from pathlib import Path

from postern.model import IdKind, new_id
from sftpd.members import MemberSpool
from storage.spool import Spool
from storage.spool_records import Sidecar


def spool_of(root: Path, number: int) -> MemberSpool:
    spool = MemberSpool(root, number)
    spool.prepare()
    return spool


def begin(spool: Spool) -> str:
    """An upload of which something came."""
    upload_id = new_id(IdKind.UPLOAD)
    spool.begin(upload_id).write_bytes(b"abc")
    return upload_id


def test_a_sweep_leaves_the_siblings_alone(tmp_path: Path) -> None:
    """Their uploads under way, and the event that one of them is writing; its own half of an event goes."""
    one, other = spool_of(tmp_path, 1), spool_of(tmp_path, 2)
    for _each in range(3):
        begin(one)
    living = begin(other)
    half, living_half = (spool.incoming / ".event.json.4711" for spool in (one, other))
    for path in (half, living_half):
        path.write_text("{", encoding="utf-8")
    assert one.sweep() == 4
    assert list(one.incoming.iterdir()) == []
    assert (other.incoming / living / "data").read_bytes() == b"abc"
    assert living_half.exists()
    assert one.sweep() == 0


def test_numbers_that_begin_alike_are_not_confused(tmp_path: Path) -> None:
    """1 and 11."""
    one, eleven = spool_of(tmp_path, 1), spool_of(tmp_path, 11)
    living = begin(eleven)
    one.sweep()
    assert (eleven.incoming / living).is_dir()


def test_what_a_process_accepts_is_every_gate_s(tmp_path: Path) -> None:
    """Intake finds it where it looks."""
    spool = spool_of(tmp_path, 2)
    upload_id = begin(spool)
    record = Sidecar(
        upload_id=upload_id,
        campaign_id=new_id(IdKind.CAMPAIGN),
        enrolment_id="enrolment_1",
        file_name="a.csv",
        size=3,
        sha256="0" * 64,
        key_fingerprint="SHA256:x",
        peer="192.0.2.1",
        received_at="2026-01-01T12:00:00.000+08:00",
    )
    spool.accept(record)
    assert Spool(tmp_path).read(upload_id) == (record, tmp_path / "accepted" / upload_id / "data")
    assert list(spool.incoming.iterdir()) == []


def test_a_gate_that_starts_alone_sweeps_all(tmp_path: Path) -> None:
    """Whatever number left it."""
    begin(spool_of(tmp_path, 1))
    begin(spool_of(tmp_path, 2))
    spool = Spool(tmp_path)
    assert spool.sweep() == 2
    assert list(spool.incoming.iterdir()) == []
