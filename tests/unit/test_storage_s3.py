"""What is particular to blobs in S3: checksums, what passes and what an operator must mend, links, encryption."""

import base64
import hashlib
import os
import socket
import time
import urllib.request
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from support.s3 import BUCKET, Answer, Asked, Store, error, scripted

from postern.errors import TransientError
from postern.settings import StoreSettings
from storage.blobs import BlobDamagedError, BlobMismatchError, BlobMissingError, Blobs, Content, blobs_from
from storage.s3 import TRIES, StoreRefusedError

pytest_plugins = ["support.stores"]

KEY = "uploads/campaign_1/upload_1.csv"
DATA = b"recipient,language\r\n6591234567,english\r\n"


def sha256(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def store_at(endpoint: str, **settings: object) -> Blobs:
    return blobs_from(StoreSettings(blob_url="s3://bucket/prefix", s3_endpoint_url=endpoint, **settings))  # type: ignore[arg-type]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file to put."""
    path = tmp_path / f"source-{os.urandom(4).hex()}"
    path.write_bytes(DATA)
    return path


def handed_out(data: bytes, checksum: str, **changes: object) -> Answer:
    headers = {"x-amz-checksum-sha256": checksum} if checksum else {}
    return Answer(headers=headers, body=data, **changes)  # type: ignore[arg-type]


def confirm(asked: Asked) -> Answer:
    """What a store says that took an object."""
    return Answer(headers={"x-amz-checksum-sha256": asked.headers["x-amz-checksum-sha256"]})


# Put


def test_an_object_is_put_in_one_request_with_its_checksum(s3_environ: None, source: Path) -> None:
    """In the header, so that the store refuses what does not arrive whole; nothing is announced that is not needed."""
    with scripted(confirm) as (endpoint, asked):
        store_at(endpoint).put(KEY, source, Content(len(DATA), hashlib.sha256(DATA).hexdigest()))
    (request,) = asked
    assert (request.method, request.path, request.body) == ("PUT", f"/bucket/prefix/{KEY}", DATA)
    assert request.headers["x-amz-checksum-sha256"] == sha256(DATA)
    assert "x-amz-server-side-encryption" not in request.headers


def test_what_was_not_announced_is_not_sent(s3_environ: None, source: Path) -> None:
    """Not a byte of it."""
    with scripted(confirm) as (endpoint, asked):
        with pytest.raises(BlobMismatchError):
            store_at(endpoint).put(KEY, source, Content(len(DATA), hashlib.sha256(b"other").hexdigest()))
        assert asked == []


@pytest.mark.parametrize(
    ("settings", "headers"),
    [
        ({"s3_sse": "AES256"}, {"x-amz-server-side-encryption": "AES256"}),
        (
            {"s3_sse": "aws:kms", "s3_sse_key": "key-1"},
            {"x-amz-server-side-encryption": "aws:kms", "x-amz-server-side-encryption-aws-kms-key-id": "key-1"},
        ),
    ],
)
def test_the_store_is_told_how_to_encrypt(
    s3_environ: None, source: Path, settings: dict[str, str], headers: dict[str, str]
) -> None:
    """With each object, whatever the bucket does by itself."""
    with scripted(confirm) as (endpoint, asked):
        store_at(endpoint, **settings).put(KEY, source)
    assert headers.items() <= asked[0].headers.items()


@pytest.mark.parametrize("said", [{}, {"x-amz-checksum-sha256": sha256(b"other")}])
def test_a_store_that_does_not_confirm_the_checksum_is_refused(
    s3_environ: None, source: Path, said: dict[str, str]
) -> None:
    """Nobody may think that bytes are stored that are not."""
    with (
        scripted(lambda _asked: Answer(headers=said)) as (endpoint, _),
        pytest.raises(StoreRefusedError, match="did not confirm its SHA-256"),
    ):
        store_at(endpoint).put(KEY, source)


# Get


@pytest.mark.parametrize("checksum", [sha256(DATA), "", f"{sha256(b'parts')}-3"])
def test_an_object_is_read(s3_environ: None, checksum: str) -> None:
    """Also one that another tool has put back: without a checksum, or with that of its parts."""
    with scripted(lambda _asked: handed_out(DATA, checksum)) as (endpoint, asked):
        with store_at(endpoint).open(KEY) as file:
            assert file.read() == DATA
        assert asked[0].headers["x-amz-checksum-mode"] == "ENABLED"


def test_an_object_that_comes_damaged_is_read_again(s3_environ: None) -> None:
    """Once: the line may have been at fault."""
    answers = [handed_out(b"x" + DATA[1:], sha256(DATA)), handed_out(DATA, sha256(DATA))]
    with scripted(lambda _asked: answers.pop(0)) as (endpoint, _), store_at(endpoint).open(KEY) as file:
        assert file.read() == DATA


def test_an_object_that_is_damaged_is_told(s3_environ: None) -> None:
    """Nobody sees a byte of it, and nobody waits for it to mend itself."""
    with scripted(lambda _asked: handed_out(b"x" + DATA[1:], sha256(DATA))) as (endpoint, _):
        with pytest.raises(BlobDamagedError, match=f"{KEY}.*Restore it") as caught:
            store_at(endpoint).open(KEY)
        assert not isinstance(caught.value, TransientError)


def test_an_object_that_breaks_off_is_waited_for(s3_environ: None) -> None:
    """It was on its way when the connection went."""
    answer = handed_out(DATA, sha256(DATA), length=len(DATA) + 10)
    with scripted(lambda _asked: answer) as (endpoint, _), pytest.raises(TransientError):
        store_at(endpoint).open(KEY)


# What passes, and what does not


def every_call(blobs: Blobs, source: Path) -> list[Callable[[], object]]:
    return [
        lambda: blobs.put(KEY, source),
        lambda: blobs.open(KEY),
        lambda: blobs.size(KEY),
        lambda: blobs.delete(KEY),
        blobs.now,
    ]


def test_a_store_that_is_busy_for_a_moment_is_asked_again(s3_environ: None, source: Path) -> None:
    """By boto3 itself, a few times."""
    answers = [error(503, "SlowDown"), error(500, "InternalError")]
    with scripted(lambda asked: answers.pop(0) if answers else confirm(asked)) as (endpoint, asked):
        store_at(endpoint).put(KEY, source)
    assert [request.body for request in asked] == [DATA] * TRIES


@pytest.mark.parametrize(("status", "code"), [(503, "SlowDown"), (503, "ServiceUnavailable"), (500, "InternalError")])
def test_a_store_that_stays_busy_is_waited_for(s3_environ: None, source: Path, status: int, code: str) -> None:
    """After a bounded number of tries; nothing says that a blob is missing or that somebody should mend something."""
    with scripted(lambda _asked: error(status, code)) as (endpoint, asked):
        with pytest.raises(TransientError, match=code) as caught:
            store_at(endpoint).put(KEY, source)
        assert len(asked) == TRIES
    assert not isinstance(caught.value, StoreRefusedError)


def test_bytes_that_changed_on_the_way_are_put_again_later(s3_environ: None, source: Path) -> None:
    """The store says so; the file is not at fault."""
    with scripted(lambda _asked: error(400, "BadDigest")) as (endpoint, _), pytest.raises(TransientError):
        store_at(endpoint).put(KEY, source)


def test_a_store_that_is_away_is_waited_for(s3_environ: None, source: Path) -> None:
    """Nobody listens there; that is so for whatever is wanted."""
    blobs = store_at("http://127.0.0.1:1")
    for call in every_call(blobs, source):
        with pytest.raises(TransientError, match="bucket"):
            call()


@pytest.mark.parametrize(
    ("status", "code", "advice"),
    [
        (404, "NoSuchBucket", "Make the bucket, or mend POSTERN_BLOB_URL"),
        (403, "AccessDenied", "s3:ListBucket on the bucket"),
        (403, "InvalidAccessKeyId", "Check AWS_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", "Check AWS_ACCESS_KEY_ID"),
        (403, "RequestTimeTooSkewed", "clock is wrong"),
        (400, "ExpiredToken", "they have expired"),
        (400, "IllegalLocationConstraintException", "set AWS_REGION"),
    ],
)
def test_a_store_that_refuses_says_what_to_mend(
    s3_environ: None, source: Path, status: int, code: str, advice: str
) -> None:
    """Without asking again and again. It is no fault of the file, so work waits until it is mended."""
    with scripted(lambda _asked: error(status, code)) as (endpoint, asked):
        with pytest.raises(StoreRefusedError, match=advice):
            store_at(endpoint).put(KEY, source)
        assert len(asked) < TRIES


@pytest.mark.parametrize(("status", "advice"), [(403, "s3:ListBucket"), (404, "Make the bucket")])
def test_a_refusal_without_a_body_is_understood(s3_environ: None, status: int, advice: str) -> None:
    """That of a HEAD."""
    with (
        scripted(lambda _asked: Answer(status=status)) as (endpoint, _),
        pytest.raises(StoreRefusedError, match=advice),
    ):
        store_at(endpoint).now()


def test_a_bucket_that_is_not_there_is_no_missing_blob(s3: Store, source: Path) -> None:
    """Else a report would be said not to be kept any more."""
    blobs = store_at(s3.endpoint)
    with pytest.raises(StoreRefusedError, match="NoSuchBucket"):
        blobs.open(KEY)


def test_the_size_in_a_bucket_that_is_not_there_is_no_missing_blob(s3: Store, source: Path) -> None:
    """Though a HEAD says no more than 404; else intake would take bytes that wait for lost, and put them again."""
    with pytest.raises(StoreRefusedError, match="Make the bucket, or mend POSTERN_BLOB_URL"):
        store_at(s3.endpoint).size(KEY)
    there = blobs_from(StoreSettings(blob_url=s3.new_url(), s3_endpoint_url=s3.endpoint))
    with pytest.raises(BlobMissingError):
        there.size(KEY)


def test_a_bucket_that_goes_takes_its_blobs_along(s3: Store, source: Path) -> None:
    """They were there; now an operator is told, and nothing is said to be lost."""
    bucket = f"goes-{os.urandom(4).hex()}"
    s3.client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "ap-southeast-1"})
    blobs = blobs_from(StoreSettings(blob_url=f"s3://{bucket}", s3_endpoint_url=s3.endpoint))
    blobs.put(KEY, source)
    assert blobs.size(KEY) == len(DATA)
    blobs.delete(KEY)
    s3.client.delete_bucket(Bucket=bucket)
    for call in every_call(blobs, source):
        with pytest.raises(StoreRefusedError, match="Make the bucket"):
            call()


def test_a_store_that_does_not_say_whether_the_bucket_is_there_is_waited_for(s3_environ: None) -> None:
    """A blob is missing only where the bucket answers."""
    said = {"/bucket/prefix/" + KEY: Answer(status=404), "/bucket": error(503, "SlowDown")}
    with scripted(lambda asked: said[asked.path]) as (endpoint, _), pytest.raises(TransientError):
        store_at(endpoint).size(KEY)


# Leaving


def test_who_has_to_leave_does_not_try_again(s3_environ: None, source: Path) -> None:
    """Neither what was on its way when it was told to, nor what it begins then."""
    with scripted(lambda _asked: leaving()) as (endpoint, asked):
        blobs = store_at(endpoint)

        def leaving() -> Answer:
            blobs.hurry()
            return error(503, "SlowDown")

        for count in (1, 2):
            with pytest.raises(TransientError):
                blobs.put(KEY, source)
            assert len(asked) == count


def test_who_has_to_leave_does_not_wait_for_a_store_that_hangs(s3_environ: None, source: Path) -> None:
    """A few seconds, against half a minute three times over."""
    with socket.create_server(("127.0.0.1", 0)) as silence:
        blobs = store_at(f"http://127.0.0.1:{silence.getsockname()[1]}")
        blobs.hurry()
        began = time.monotonic()
        with pytest.raises(TransientError):
            blobs.put(KEY, source)
    assert time.monotonic() - began < 15


def test_missing_credentials_are_told(s3: Store, monkeypatch: pytest.MonkeyPatch, source: Path) -> None:
    """With where they are looked for."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StoreRefusedError, match="AWS_ACCESS_KEY_ID"):
        store_at(s3.endpoint).put(KEY, source)


# Links


def fetch(url: str) -> tuple[bytes, Message]:
    with urllib.request.urlopen(url) as answer:
        return answer.read(), answer.headers


def test_a_link_serves_a_blob_for_a_while(s3: Store, source: Path) -> None:
    """Without credentials, as the file that it is, under the name that people know."""
    blobs = blobs_from(StoreSettings(blob_url=s3.new_url(), s3_endpoint_url=s3.endpoint))
    blobs.put(KEY, source)
    url = blobs.link(KEY, file_name="report.csv", media_type="text/csv; charset=utf-8")
    assert url is not None
    content, headers = fetch(url)
    assert content == DATA
    assert headers["Content-Disposition"] == 'attachment; filename="report.csv"'
    assert headers["Content-Type"] == "text/csv; charset=utf-8"
    query = parse_qs(urlsplit(url).query)
    assert query["X-Amz-Expires"] == ["60"]
    assert query["response-cache-control"] == ["private, no-store"]


def test_a_link_leads_to_where_people_reach_the_store(s3_environ: None) -> None:
    """Which need not be where Postern reaches it."""
    blobs = store_at("http://10.0.0.1:9000", s3_public_endpoint_url="https://files.agency.example", s3_link_seconds=5)
    url = blobs.link(KEY, file_name="report.csv", media_type="text/csv")
    assert url is not None
    assert url.startswith(f"https://files.agency.example/bucket/prefix/{KEY}?")
    assert parse_qs(urlsplit(url).query)["X-Amz-Expires"] == ["5"]


def test_links_can_be_switched_off(s3_environ: None) -> None:
    """Where nobody but Postern may reach the store, web serves blobs itself."""
    blobs = store_at("http://10.0.0.1:9000", s3_link_seconds=0)
    assert blobs.link(KEY, file_name="report.csv", media_type="text/csv") is None


# The bucket


def test_a_bucket_may_hold_what_is_not_ours(s3: Store, source: Path) -> None:
    """All that is ours is under the prefix; nothing else is seen or touched."""
    url = s3.new_url()
    blobs = blobs_from(StoreSettings(blob_url=url, s3_endpoint_url=s3.endpoint))
    blobs.put(KEY, source)
    prefix = urlsplit(url).path.strip("/")
    found = s3.client.list_objects_v2(Bucket=BUCKET, Prefix=prefix.partition("/")[0])["Contents"]
    assert [one["Key"] for one in found] == [f"{prefix}/{KEY}"]
    other = blobs_from(StoreSettings(blob_url=s3.new_url(), s3_endpoint_url=s3.endpoint))
    other.delete(KEY)
    with pytest.raises(BlobMissingError):
        other.open(KEY)
    assert blobs.size(KEY) == len(DATA)
