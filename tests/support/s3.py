"""An S3 of the tests' own: moto on the loopback, in a thread; and one that answers what it is told to.

Moto keeps objects and their checksums but checks none; what a store does about wrong ones is scripted.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from postern.model import IdKind, new_id

ENVIRON = {
    "AWS_ACCESS_KEY_ID": "postern-tests",
    "AWS_SECRET_ACCESS_KEY": "not-a-secret",
    "AWS_REGION": "ap-southeast-1",
    "AWS_EC2_METADATA_DISABLED": "true",  # nothing is asked of the machine's cloud
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}


BUCKET = "postern-tests"


@dataclass(frozen=True)
class Store:
    """Where an S3 answers, with a bucket."""

    endpoint: str
    client: Any  # boto3's, beside Postern's own

    def new_url(self) -> str:
        """Room of one's own in the bucket, as the settings take it."""
        return f"s3://{BUCKET}/{new_id(IdKind.UPLOAD)}/blobs"


@pytest.fixture
def s3_environ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials where boto3 looks for them, and none of this machine's."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Store]:
    """The session's S3."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it logs each request
    # One request after the other: moto's own threads would hand out objects that are just being replaced.
    server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    session = boto3.session.Session(
        aws_access_key_id=ENVIRON["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=ENVIRON["AWS_SECRET_ACCESS_KEY"],
        region_name=ENVIRON["AWS_REGION"],
    )
    client = session.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": ENVIRON["AWS_REGION"]})
    yield Store(endpoint, client)
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def s3(s3_server: Store, s3_environ: None) -> Store:
    """The session's S3, with credentials for it."""
    return s3_server


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request that arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(kw_only=True)
class Answer:
    """What is answered to it."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    length: int | None = None  # that is announced, where it is not the body's


def error(status: int, code: str) -> Answer:
    """S3's answer to what it does not do."""
    text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>Said in English.</Message></Error>"
    return Answer(status=status, headers={"Content-Type": "application/xml"}, body=text.encode())


@contextmanager
def scripted(answer: Callable[[Asked], Answer]) -> Iterator[tuple[str, list[Asked]]]:
    """A store that answers what `answer` says; yields its address and what it was asked, as it comes."""
    asked: list[Asked] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            if self.headers.get("Expect") == "100-continue":
                self.send_response_only(100)
                self.end_headers()
            request = Asked(
                method=self.command, path=self.path, headers=dict(self.headers), body=self.rfile.read(length)
            )
            asked.append(request)
            said = answer(request)
            self.send_response(said.status)
            for name, value in said.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(said.body) if said.length is None else said.length))
            self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(said.body)
            self.close_connection = True

        do_PUT = do_HEAD = do_DELETE = do_GET  # noqa: N815 - the names that http.server calls

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
