"""Intake that is told to stop while the blob store does not do its part: it leaves soon, and loses nothing."""

import asyncio
from pathlib import Path

from support.host import host_on
from support.s3 import Answer, Asked, error, scripted

from pipeline.intake import leave_soon, take_in, watch_spool
from postern.settings import StoreSettings
from storage.blobs import blobs_from
from storage.s3 import TRIES

pytest_plugins = ["support.databases", "support.stores"]


async def test_nothing_is_tried_again_once_told_to_stop(sqlite_url: str, tmp_path: Path, s3_environ: None) -> None:
    """What is on its way ends, the last look tries once, and the upload waits for the next start."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def busy(asked: Asked) -> Answer:
        if asked.method == "PUT":
            loop.call_soon_threadsafe(stop.set)
        return error(503, "SlowDown")

    with host_on(sqlite_url, tmp_path / "home") as host, scripted(busy) as (endpoint, asked):
        sidecar = host.accept()
        blobs = blobs_from(StoreSettings(blob_url="s3://bucket", s3_endpoint_url=endpoint))
        intake = host.intake(blobs=blobs)
        await asyncio.wait_for(asyncio.gather(watch_spool(intake, stop), leave_soon(intake, stop)), 30)
        assert len(asked) < TRIES + TRIES  # of the put that was on its way, and of the last look
        assert host.spool.is_waiting(sidecar.upload_id)
        take_in(host.intake())
        assert not host.spool.is_waiting(sidecar.upload_id)
