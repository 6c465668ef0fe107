"""What happens to an upload once it is in the ledger: it is judged, and gets its outcome.

All of it can be done twice: the verdict is a function of the bytes, report and batch
have ids made from the upload's, and the outcome is written once. A worker that dies anywhere in between leaves
the upload `validating`; whoever takes over starts again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pipeline import index_job, workbook_job
from pipeline.batches import write_batch
from pipeline.context import notice_context
from pipeline.ruleset import ruleset_for
from pipeline.scratch import copy_blob, scratch
from pipeline.validator import Validated, Validator
from postern.errors import PosternError, Refusal, TransientError
from postern.links import LinkSigner
from postern.logs import get_logger
from postern.model import Campaign, IdKind, Upload, new_id
from postern.settings import WorkerSettings
from storage.blobs import Blobs
from storage.database import Database
from storage.engine import PATIENCE, Engine, patiently
from storage.jobs import PROCESS_UPLOAD, JobBoard
from storage.ledger.batches import enqueue_batch
from storage.ledger.campaigns import get_campaign
from storage.ledger.decisions import drop_open_upload
from storage.ledger.uploads import fail_upload, reject_upload, start_validation

log = get_logger(__name__)


class GivenUpError(PosternError):
    """The upload's job was started again and again, and never came to an end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """What processing an upload needs."""

    settings: WorkerSettings
    database: Database
    blobs: Blobs
    jobs: JobBoard
    validator: Validator
    links: LinkSigner
    now: Callable[[], datetime]
    patience: float = PATIENCE


def register(engine: Engine, pipeline: Pipeline) -> None:
    """Let this worker process uploads."""

    async def process_upload(upload_id: str) -> bool:
        return await patiently(process, pipeline, upload_id, patience=pipeline.patience)

    engine.register(PROCESS_UPLOAD, process_upload)
    workbook_job.register(
        engine,
        workbook_job.Bookbinder(settings=pipeline.settings, database=pipeline.database, blobs=pipeline.blobs),
    )
    index_job.register(engine, pipeline.database)


def process(pipeline: Pipeline, upload_id: str) -> str:
    """Judge an upload and give it its outcome; does nothing for one that has it.

    Returns:
        the outcome, for the log.

    Raises:
        TransientError: something is away; to be tried again.
    """
    upload = start_validation(pipeline.database, upload_id)
    if upload is None:
        return "done before"
    campaign = get_campaign(pipeline.database, upload.campaign_id, even_deleted=True)
    if campaign.deleted_at is not None:
        return _drop(pipeline, upload, campaign)
    try:
        with scratch(pipeline.settings) as folder:
            return _judge(pipeline, upload, campaign, folder)
    except TransientError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it was, the owner must not be left without an outcome
        return _fail(pipeline, upload, campaign, error)


def give_up(pipeline: Pipeline, upload_id: str) -> str:
    """Fail an upload whose job took its worker along again and again; does nothing for one that has its outcome."""
    upload = start_validation(pipeline.database, upload_id)
    if upload is None:
        return "done before"
    campaign = get_campaign(pipeline.database, upload.campaign_id, even_deleted=True)
    return _fail(pipeline, upload, campaign, GivenUpError("Its job was given up: it never came to an end."))


def _judge(pipeline: Pipeline, upload: Upload, campaign: Campaign, folder: Path) -> str:
    log.info("upload.judging", upload_id=upload.id, size=upload.size)
    data, report, messages = folder / "data.csv", folder / "report.csv", folder / "messages"
    assert upload.blob_key is not None
    copy_blob(pipeline.blobs, upload.blob_key, data)
    rules = ruleset_for(campaign, pipeline.settings)
    validated = pipeline.validator.validate(data, rules, report=report, messages=messages)
    log.info("upload.judged", upload_id=upload.id, is_valid=validated.verdict.is_valid)
    if validated.verdict.is_valid:
        return _accept(pipeline, upload, campaign, validated, messages)
    return _reject(pipeline, upload, campaign, validated, report)


def _accept(pipeline: Pipeline, upload: Upload, campaign: Campaign, validated: Validated, messages: Path) -> str:
    extent = (validated.verdict.total_rows, validated.first_row, validated.last_row)
    batch_id = write_batch(
        pipeline.database,
        upload_id=upload.id,
        campaign_id=campaign.id,
        rows=messages,
        extent=extent,
        now=pipeline.now(),
    )
    verdict = validated.verdict
    try:
        enqueue_batch(
            pipeline.database,
            pipeline.jobs,
            batch_id=batch_id,
            upload_id=upload.id,
            rate=campaign.rate,
            verdict=verdict,
            context=notice_context(upload, campaign, pipeline.settings, verdict=verdict, batch_id=batch_id),
            now=pipeline.now(),
        )
    except Refusal:  # its campaign was deleted meanwhile
        return _drop(pipeline, upload, campaign)
    log.info("upload.accepted", upload_id=upload.id, batch_id=batch_id, rows=verdict.total_rows)
    return "accepted"


def _reject(pipeline: Pipeline, upload: Upload, campaign: Campaign, validated: Validated, report: Path) -> str:
    key = f"validation-reports/{campaign.id}/{upload.id}.csv"
    pipeline.blobs.put(key, report)
    now = pipeline.now()
    expires_at = now + timedelta(days=pipeline.settings.link_days)
    base, verdict = pipeline.settings.public_url, validated.verdict
    url = pipeline.links.sign(base, f"/{key}", expires_at)
    workbook_key = workbook_job.workbook_key(upload)
    workbook_url = pipeline.links.sign(base, f"/{workbook_key}", expires_at) if validated.fits_workbook else None
    reject_upload(
        pipeline.database,
        pipeline.jobs,
        upload.id,
        verdict,
        report_key=key,
        report_url=url,
        context=notice_context(
            upload,
            campaign,
            pipeline.settings,
            verdict=verdict,
            report_url=url,
            workbook_url=workbook_url,
            report_expires_at=expires_at,
        ),
        has_workbook=validated.fits_workbook,
        now=now,
    )
    log.info("upload.rejected", upload_id=upload.id, rows=verdict.num_rows, errors=verdict.num_errors)
    return "rejected"


def _fail(pipeline: Pipeline, upload: Upload, campaign: Campaign, error: Exception) -> str:
    support_id = upload.support_id or new_id(IdKind.SUPPORT)  # of an earlier try, which its owner may quote
    log.error("upload.failed", upload_id=upload.id, support_id=support_id, exc_info=error)
    fail_upload(
        pipeline.database,
        pipeline.jobs,
        upload.id,
        support_id=support_id,
        reason=_told(error),
        context=notice_context(
            upload, campaign, pipeline.settings, support_id=support_id, reason=_tried_again(upload.num_retries)
        ),
        now=pipeline.now(),
    )
    return "failed"


def _drop(pipeline: Pipeline, upload: Upload, campaign: Campaign) -> str:
    context = notice_context(upload, campaign, pipeline.settings)
    drop_open_upload(pipeline.database, pipeline.jobs, upload, context=context, now=pipeline.now())
    log.info("upload.dropped", upload_id=upload.id, why="campaign deleted")
    return "dropped"


def _tried_again(retries: int) -> str | None:
    return f"It was tried again and has failed again; that was try {retries + 1}." if retries else None


def _told(error: Exception) -> str:
    """What the ledger says of a fault: never the text of somebody else's exception, which may hold values."""
    return str(error).splitlines()[-1] if isinstance(error, PosternError) else type(error).__name__
