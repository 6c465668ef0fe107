"""Blobs as objects of an S3 bucket; the only home of boto3.

Every object is put in one request with its SHA-256, which the store checks before it takes the object and says back,
and what is read is checked against it before anybody sees a byte. Whatever the store refuses is not the fault of the
work that wanted it, so it waits: as trouble that passes, or with a sentence that tells the operator what to mend.
Credentials and the region are found as boto3 finds them (environment, profile, web identity, instance role).
"""

import base64
import contextlib
import hashlib
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self, cast

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    FlexibleChecksumError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)
from typing_extensions import override

from postern.errors import PosternError, TransientError
from postern.settings import StoreSettings
from storage.blobs import BLOCK, BlobDamagedError, BlobMissingError, Blobs, Content, checked_key, copy_checked

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

CONNECT_TIMEOUT = 5.0  # seconds
REPLY_TIMEOUT = 30.0  # seconds without a byte
TRIES = 3  # of each request, by boto3's standard mode: with growing pauses, and obeying a store that asks for them
_HURRIED = 3.0  # seconds to connect, and without a byte, where somebody waits for us to leave; and one try
_READINGS = 2  # of an object that comes damaged
_IN_MEMORY = 32 << 20  # bytes; what is larger goes through a file of its own in TMPDIR
_MISSING = {"NoSuchKey", "404"}  # a HEAD has no body, and so no code but its status

_CREDENTIALS = "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the role, of this process"
_ADVICE: Mapping[str, str] = {
    "NoSuchBucket": "Make the bucket, or mend POSTERN_BLOB_URL",
    "AccessDenied": "Its policy must allow s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject and "
    "s3:DeleteObject on what is in it (with SSE-KMS also kms:GenerateDataKey and kms:Decrypt on the key)",
    "InvalidAccessKeyId": _CREDENTIALS,
    "SignatureDoesNotMatch": _CREDENTIALS,
    "InvalidToken": _CREDENTIALS,
    "ExpiredToken": f"{_CREDENTIALS}; they have expired",
    "RequestTimeTooSkewed": "This machine's clock is wrong; set it by NTP",
    "PermanentRedirect": "The bucket is in another region; set AWS_REGION",
    "AuthorizationHeaderMalformed": "The bucket is in another region; set AWS_REGION",
    "IllegalLocationConstraintException": "The bucket is in another region; set AWS_REGION",
    "ServerSideEncryptionConfigurationNotFoundError": "Check POSTERN_S3_SSE",
}
_BY_STATUS = {403: "AccessDenied", 301: "PermanentRedirect"}  # a HEAD's


class StoreRefusedError(TransientError):
    """The store answers and refuses us. Nothing but an operator mends that; until then work waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """How the store itself serves a blob for a while."""

    seconds: int  # 0: not at all
    client: "S3Client"  # with the endpoint by which people reach the store


class S3Blobs(Blobs):
    """A bucket, or what is under a prefix of it. Safe to share between threads."""

    def __init__(
        self,
        client: "S3Client",
        *,
        endpoint: str = "",
        bucket: str,
        prefix: str = "",
        encryption: Mapping[str, str],
        links: Links,
    ) -> None:
        self._client = client
        self._endpoint = endpoint
        self._is_hurried = threading.Event()
        client.meta.events.register("request-created.s3", self._try_again_or_not)
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._encryption = encryption
        self._links = links

    @classmethod
    def from_settings(cls, settings: StoreSettings) -> Self:
        """The bucket that the settings name; nothing is asked of it yet."""
        encryption = {"ServerSideEncryption": settings.s3_sse, "SSEKMSKeyId": settings.s3_sse_key}
        client = _client(settings.s3_endpoint_url)
        public = settings.s3_public_endpoint_url
        return cls(
            client,
            endpoint=settings.s3_endpoint_url,
            bucket=settings.bucket,
            prefix=settings.bucket_prefix,
            encryption={name: value for name, value in encryption.items() if value},
            links=Links(seconds=settings.s3_link_seconds, client=_client(public) if public else client),
        )

    @override
    def put(self, key: str, source: Path, content: Content | None = None) -> None:
        name = self._name(key)
        with source.open("rb") as read, _scratch() as copy:  # which nobody else can write to
            copy_checked(read, copy, content)
            digest = _digest(copy)
            with self._translated():
                answer = self._client.put_object(
                    Bucket=self._bucket,
                    Key=name,
                    Body=copy,
                    ChecksumAlgorithm="SHA256",
                    ChecksumSHA256=digest,
                    **cast("Any", self._encryption),
                )
        if answer.get("ChecksumSHA256") != digest:
            raise StoreRefusedError(
                f"The bucket {self._bucket} took {key} and did not confirm its SHA-256. Postern needs an S3 store "
                "that checks x-amz-checksum-sha256."
            )

    @override
    def open(self, key: str) -> BinaryIO:
        name = self._name(key)
        for _ in range(_READINGS):
            copy = _scratch()
            try:
                with self._translated(key):
                    _receive(self._client.get_object(Bucket=self._bucket, Key=name, ChecksumMode="ENABLED"), copy)
            except FlexibleChecksumError:
                copy.close()
            except BaseException:
                copy.close()
                raise
            else:
                return copy
        raise BlobDamagedError(
            f"The blob {key} is not what was put: its SHA-256 is another. Restore it from a backup, or from an "
            "earlier version of the object."
        )

    @override
    def size(self, key: str) -> int:
        try:
            with self._translated(key):
                return self._client.head_object(Bucket=self._bucket, Key=self._name(key))["ContentLength"]
        except BlobMissingError:
            # Its answer has no body to say what is missing, and a bucket that is away must not pass for lost bytes.
            with self._translated():
                self._client.head_bucket(Bucket=self._bucket)
            raise

    @override
    def delete(self, key: str) -> None:
        with self._translated():
            self._client.delete_object(Bucket=self._bucket, Key=self._name(key))

    @override
    def link(self, key: str, *, file_name: str, media_type: str) -> str | None:
        if not self._links.seconds:
            return None
        asked = {
            "Bucket": self._bucket,
            "Key": self._name(key),
            "ResponseContentDisposition": f'attachment; filename="{file_name}"',
            "ResponseContentType": media_type,
            "ResponseCacheControl": "private, no-store",
        }
        with self._translated():
            return self._links.client.generate_presigned_url("get_object", asked, self._links.seconds)

    @override
    def now(self) -> datetime | None:
        with self._translated():
            answer = self._client.head_bucket(Bucket=self._bucket)
        date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        return parsedate_to_datetime(date) if date else None

    @override
    def hurry(self) -> None:
        if not self._is_hurried.is_set():
            self._is_hurried.set()
            self._client = _client(self._endpoint, connect=_HURRIED, reply=_HURRIED, tries=1)

    def _try_again_or_not(self, request: Any, **_more: object) -> None:
        """Called by boto3 before each try of a call: what was on its way when we were hurried is not tried again."""
        if self._is_hurried.is_set() and request.context.get("retries", {}).get("attempt", 1) > 1:
            raise TransientError(f"The bucket {self._bucket} did not answer, and this process is to stop.")

    def _name(self, key: str) -> str:
        return self._prefix + checked_key(key)

    @contextlib.contextmanager
    def _translated(self, key: str | None = None) -> Iterator[None]:
        """Turn what boto3 raises into what our callers know; its text may hold addresses, never credentials."""
        try:
            yield
        except FlexibleChecksumError:
            raise  # it may be read again at once
        except ClientError as error:
            if key is not None and error.response["Error"]["Code"] in _MISSING:
                raise BlobMissingError(f"There is no blob {key}.") from None
            raise self._refusal(error) from None
        except (NoCredentialsError, PartialCredentialsError, ProfileNotFound) as error:
            raise StoreRefusedError(f"The bucket {self._bucket} cannot be used: {error}. {_CREDENTIALS}.") from None
        except (BotoCoreError, OSError) as error:
            raise TransientError(f"The bucket {self._bucket} cannot be used: {error}") from error

    def _refusal(self, error: ClientError) -> PosternError:
        code = error.response["Error"]["Code"]
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        advice = _ADVICE.get(code) or _ADVICE.get(_BY_STATUS.get(status, ""))
        if code == "404":  # of the bucket: that of an object is no refusal
            advice = _ADVICE["NoSuchBucket"]
        said = f"The bucket {self._bucket} answered {status} {code}."
        return StoreRefusedError(f"{said} {advice}.") if advice else TransientError(said)


def _client(
    endpoint: str, *, connect: float = CONNECT_TIMEOUT, reply: float = REPLY_TIMEOUT, tries: int = TRIES
) -> "S3Client":
    config = Config(
        connect_timeout=connect,
        read_timeout=reply,
        retries={"total_max_attempts": tries, "mode": "standard"},
        signature_version="s3v4",
        # Names in the host need a wildcard in DNS, which only Amazon's own endpoint surely has.
        s3={"addressing_style": "path" if endpoint else "auto"},
        request_checksum_calculation="when_required",  # ours are given with each object
        response_checksum_validation="when_required",
    )
    try:
        # A session of one's own: boto3's default one is not safe to share between threads.
        return boto3.session.Session().client("s3", endpoint_url=endpoint or None, config=config)
    except (BotoCoreError, ValueError) as error:
        raise StoreRefusedError(f"The blob store cannot be used: {error}. {_CREDENTIALS}.") from None


def _scratch() -> BinaryIO:
    return cast("BinaryIO", tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY))


def _digest(file: BinaryIO) -> str:
    """The SHA-256 of a file, as S3 writes it; the file is at its beginning afterwards."""
    file.seek(0)
    digest = hashlib.sha256()
    while block := file.read(BLOCK):
        digest.update(block)
    file.seek(0)
    return base64.b64encode(digest.digest()).decode()


def _receive(answer: "GetObjectOutputTypeDef", copy: BinaryIO) -> None:
    """Read an object to its end; boto3 checks its length and its SHA-256 there.

    An object that another tool put (after a restore, say) may have no SHA-256, or one of its parts' (`…-3`); then its
    length alone counts.
    """
    with contextlib.closing(answer["Body"]) as body:
        shutil.copyfileobj(body, copy, BLOCK)
    copy.seek(0)
