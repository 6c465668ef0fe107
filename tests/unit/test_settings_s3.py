"""Settings of blobs in S3."""

from pathlib import Path

import pytest

from postern.errors import SettingsError
from postern.settings import GateSettings, StoreSettings
from storage.blobs import blobs_from
from storage.local import LocalBlobs


@pytest.mark.parametrize(
    ("url", "bucket", "prefix"),
    [
        ("s3://agency-postern", "agency-postern", ""),
        ("s3://agency-postern/", "agency-postern", ""),
        ("s3://agency.postern/production/blobs/", "agency.postern", "production/blobs"),
    ],
)
def test_a_bucket_and_a_prefix(url: str, bucket: str, prefix: str) -> None:
    """A slash at the end does not count."""
    settings = StoreSettings.load({"POSTERN_BLOB_URL": url})
    assert (settings.bucket, settings.bucket_prefix) == (bucket, prefix)


def test_a_folder_is_no_bucket(tmp_path: Path) -> None:
    """Nor is boto3 needed for it."""
    for url in ("", f"file://{tmp_path}"):
        settings = StoreSettings(home=tmp_path, blob_url=url)
        assert settings.bucket == ""
        assert isinstance(blobs_from(settings), LocalBlobs)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BLOB_URL", "s3://"),
        ("BLOB_URL", "s3://ab"),
        ("BLOB_URL", "s3://Bucket"),
        ("BLOB_URL", "s3://bucket/a//b"),
        ("BLOB_URL", "s3://bucket/../other"),
        ("BLOB_URL", "s3://bucket?region=x"),
        ("S3_ENDPOINT_URL", "s3.agency.example:9000"),
        ("S3_ENDPOINT_URL", "https://user:hunter2@s3.agency.example"),
        ("S3_ENDPOINT_URL", "https://s3.agency.example/bucket"),
        ("S3_PUBLIC_ENDPOINT_URL", "ftp://s3.agency.example"),
        ("S3_LINK_SECONDS", "-1"),
        ("S3_SSE", "rot13"),
    ],
)
def test_what_cannot_be_used_is_told(name: str, value: str) -> None:
    """By its variable, and without a password."""
    with pytest.raises(SettingsError, match=f"POSTERN_{name}=") as caught:
        StoreSettings.load({f"POSTERN_{name}": value})
    assert "hunter2" not in str(caught.value)


def test_the_gate_knows_no_store() -> None:
    """Its environment has none of these, so `serve` hands it none."""
    assert not [name for name in GateSettings.variables() if "S3" in name or "BLOB" in name or name.startswith("AWS")]
