"""The same on PostgreSQL and S3: one good and one bad file through `postern serve`, and the store that goes away."""

import csv
import io
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from acceptance.installation import Installation, good_file, json_line
from support.postgresql import Cluster
from support.s3 import ENVIRON, Store

pytest_plugins = ["support.databases", "support.stores"]


@pytest.fixture
def installation(tmp_path: Path, postgresql: Cluster, s3: Store) -> Iterator[Installation]:
    """A Postern on an empty database and a bucket, migrated and not running yet."""
    name = postgresql.create()
    installation = Installation(
        tmp_path,
        POSTERN_DATABASE_URL=postgresql.url(name),
        POSTERN_BLOB_URL=s3.new_url(),
        POSTERN_S3_ENDPOINT_URL=s3.endpoint,
        **ENVIRON,
    )
    refused = installation.run("campaign", "list")
    assert (refused.returncode, "postern db migrate" in refused.stderr) == (1, True)
    assert installation.postern("db", "migrate")["state"] == "current"
    yield installation
    postgresql.drop(name)


def test_files_go_their_way_over_postgresql_and_s3(installation: Installation, s3: Store) -> None:
    """put → mail → batch to its end, and put → mail → report: the link leads to the store for a moment."""
    with installation.serving():
        campaign_id, key = installation.enrolled()
        installation.put(campaign_id, key, good_file(20))
        good = installation.outcome()
        assert (good["status"], good["totalRows"]) == ("accepted", 20)
        assert installation.final_batch(good["batchId"])["messages"] == {"success": 20}

        installation.put(campaign_id, key, "recipient,language,recipient_name,topic\n91234567,english,Ann,x\n", "b.csv")
        bad = installation.outcome(2)
        assert json.loads(json_line(installation.mail_about(bad))[0])["reportURL"] == bad["reportURL"]
        with urllib.request.urlopen(bad["reportURL"]) as answer:
            assert urlsplit(answer.url).netloc == urlsplit(s3.endpoint).netloc
            assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
            rows = list(csv.reader(io.StringIO(answer.read().decode("utf-8-sig"), newline="")))
        assert "put 65 in front" in rows[1][-1]

        bucket, _, prefix = installation.environ["POSTERN_BLOB_URL"].removeprefix("s3://").partition("/")
        stored = {
            one["Key"].removeprefix(f"{prefix}/")
            for one in s3.client.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]
        }
        assert {f"uploads/{campaign_id}/{upload['id']}.csv" for upload in (good, bad)} <= stored
        assert f"validation-reports/{campaign_id}/{bad['id']}.csv" in stored
        assert not (installation.home / "blobs").exists()
        assert not (installation.home / "postern.db").exists()

        health = installation.postern("doctor")
        assert health["isWell"], health
        environ = {role: Path(f"/proc/{installation.pid(role)}/environ").read_bytes() for role in ("gate", "intake")}
        assert [b"AWS_SECRET_ACCESS_KEY=" in environ[role] for role in ("gate", "intake")] == [False, True]
        assert b"POSTERN_S3" not in environ["gate"]
