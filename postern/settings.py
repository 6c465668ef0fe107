"""What can be set: `POSTERN_*` from the environment and from `$POSTERN_HOME/postern.env`, one frozen object a role.

The environment wins over the file. All that is wrong is reported at once, as one `SettingsError`.
The gate's settings name no database, mail, provider or secret, and `serve` hands the gate only these.
"""

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from email.utils import parseaddr
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any, Self
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from typing_extensions import override

from postern.errors import SettingsError
from postern.model import Environment
from postern.secret import VARIABLE as SECRET_KEY
from postern.secret import decoded
from postern.settings_file import read_settings_file
from postern.smtp_url import SmtpServer

PREFIX = "POSTERN_"

_LABEL = "[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_API = re.compile(
    rf"https?://({_LABEL}(\.{_LABEL})*|\[[0-9a-f:.]+\])(:[1-9][0-9]{{0,4}})?(/[a-z0-9._~-]+)*/?", re.IGNORECASE
)
_BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9][A-Za-z0-9._-]*)*/?")

DEFAULT_TEMPORARY_SUFFIXES = (".filepart", ".part", ".partial", ".<hex>.partial", ".tmp", "(<pid>).tmp")


class Settings(BaseModel):
    """What every role knows."""

    model_config = ConfigDict(frozen=True, extra="ignore", arbitrary_types_allowed=True)

    home: Path = Field(default=Path("postern-data"), validate_default=True)
    environment: Environment = Environment.PRODUCTION
    timezone: ZoneInfo = ZoneInfo("Asia/Singapore")
    log_level: str = "INFO"

    @field_validator("home", mode="after")
    @classmethod
    def _absolute_home(cls, home: Path) -> Path:
        return home.expanduser().resolve()

    @field_validator("timezone", mode="before")
    @classmethod
    def _known_timezone(cls, value: object) -> ZoneInfo:
        if isinstance(value, ZoneInfo):
            return value
        try:
            return ZoneInfo(str(value))
        except (KeyError, ValueError, OSError):
            raise ValueError(f"{value!r} is no time zone; use a name such as Asia/Singapore") from None

    @field_validator("log_level", mode="after")
    @classmethod
    def _known_level(cls, value: str) -> str:
        if value.upper() not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
            raise ValueError(f"{value!r} is no log level; use DEBUG, INFO, WARNING or ERROR")
        return value.upper()

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read the settings.

        Raises:
            SettingsError: names every variable that cannot be used, and why.
        """
        environ = os.environ if environ is None else environ
        home = Path(environ.get(PREFIX + "HOME") or cls.model_fields["home"].default).expanduser()
        merged: dict[str, str | None] = {**read_settings_file(home), **environ}
        values: dict[str, Any] = {
            name: merged[PREFIX + name.upper()] for name in cls.model_fields if merged.get(PREFIX + name.upper())
        }
        settings, problems = None, cls._beside_fields(merged)
        try:
            settings = cls.model_validate(values)
        except ValidationError as error:
            problems = [*_explain(error), *problems]
        if settings is None or problems:
            raise SettingsError("\n".join(["These settings cannot be used:", *(f"  {line}" for line in problems)]))
        return settings

    @classmethod
    def _beside_fields(cls, _values: Mapping[str, str | None]) -> list[str]:
        """What is wrong with variables that this role reads and does not keep here."""
        return []

    @classmethod
    def variables(cls) -> list[str]:
        """The names of the environment variables that this role reads."""
        return [PREFIX + name.upper() for name in cls.model_fields]

    @property
    def run_folder(self) -> Path:
        """Where running roles say who and where they are."""
        return self.home / "run"


class SshPolicy(StrEnum):
    """Which algorithms the gate offers."""

    COMPATIBLE = "compatible"
    STRICT = "strict"


class GateSettings(Settings):
    """What the SFTP gate knows; nothing in it is worth stealing. Its limits hold for one process of the gate."""

    sftp_host: str = "0.0.0.0"  # noqa: S104 - a gate is there to be reached
    sftp_port: int = Field(default=2222, ge=0, le=65535)
    max_file_size: int = Field(default=30_000_000, ge=1)  # bytes; a file must be smaller
    temporary_suffixes: tuple[str, ...] = DEFAULT_TEMPORARY_SUFFIXES
    ssh_policy: SshPolicy = SshPolicy.COMPATIBLE
    proxy_from: tuple[IPv4Network | IPv6Network, ...] = ()  # load balancers that begin with a PROXY header, version 2
    max_guests: int = Field(default=512, ge=1)  # connections that have not logged in
    max_guests_per_address: int = Field(default=128, ge=1)
    ban_points: int = Field(default=30, ge=0)  # refused keys, about, until an address is banned; 0: never
    max_sessions: int = Field(default=64, ge=1)  # of one campaign: connections, and sessions
    max_unfinished: int = Field(default=64, ge=1)  # files of one campaign that are neither accepted nor abandoned
    disk_reserve: int = Field(default=500_000_000, ge=0)  # bytes; with less free no new file is taken
    spool_max_files: int = Field(default=20_000, ge=1)  # with so many waiting for intake no new file is taken
    spool_max_bytes: int = Field(default=20_000_000_000, ge=1)
    login_timeout: float = Field(default=30, gt=0)  # seconds
    idle_timeout: float = Field(default=300, gt=0)  # seconds without a byte, or with an open file 64 KiB, of a client
    drain_timeout: float = Field(default=30, ge=0)  # seconds for uploads in flight when told to stop
    gate_processes: int = Field(default=1, ge=1, le=64)  # that share the port
    gate_metrics_port: int = Field(default=0, ge=0, le=65_000)  # on 127.0.0.1; 0: none; each process one more

    @field_validator("temporary_suffixes", mode="before")
    @classmethod
    def _split_suffixes(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("proxy_from", mode="before")
    @classmethod
    def _read_networks(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(ip_network(part.strip()) for part in value.split(",") if part.strip())
        return value

    @property
    def gate_folder(self) -> Path:
        """Host keys and the keyring snapshot."""
        return self.home / "gate"

    @property
    def host_key_folder(self) -> Path:
        """The gate's private keys."""
        return self.gate_folder / "host_keys"

    @property
    def spool_folder(self) -> Path:
        """Where the gate hands uploads over to intake."""
        return self.home / "spool"


class StoreSettings(Settings):
    """What every role behind the gate knows: where things are kept and how they are reached from outside."""

    database_url: str = Field(default="", repr=False)  # a URL may hold a password
    blob_url: str = Field(default="", repr=False)
    s3_endpoint_url: str = ""  # of a store that is not Amazon's
    s3_public_endpoint_url: str = ""  # by which people reach that store, where it is another
    s3_link_seconds: int = Field(default=60, ge=0, le=3600)  # how long the store's own link works; 0: web serves blobs
    s3_sse: str = ""  # AES256, aws:kms or aws:kms:dsse; what the bucket does by itself unless set
    s3_sse_key: str = ""  # the key's id, for aws:kms
    public_url: str = "http://127.0.0.1:8080"
    link_days: int = Field(default=7, ge=1)  # how long a link to it works
    provider: str = "simulator"
    price_local: Decimal = Field(default=Decimal("0.046"), ge=0, max_digits=12)  # SGD a segment, before tax
    price_foreign: Decimal = Field(default=Decimal("0.23"), ge=0, max_digits=12)
    repeat_window: float | None = Field(default=None, ge=0, le=8760)  # hours; unless set, by the environment

    @field_validator("database_url", mode="after")
    @classmethod
    def _known_database(cls, value: str) -> str:
        if value and not value.startswith(("sqlite:///", "postgresql://", "postgres://")):
            raise ValueError("use sqlite:////path/file.db or postgresql://user@host/name")
        return value.replace("postgres://", "postgresql://", 1)

    @field_validator("blob_url", mode="after")
    @classmethod
    def _known_blob_store(cls, value: str) -> str:
        if value and not value.startswith("file:///") and not _BUCKET.fullmatch(value):
            raise ValueError("use s3://bucket/prefix, file:///path, or leave it out for a folder under POSTERN_HOME")
        return value

    @field_validator("s3_endpoint_url", "s3_public_endpoint_url", mode="after")
    @classmethod
    def _known_endpoint(cls, value: str) -> str:
        parts = _split_url(value)
        plain = parts.hostname and not parts.username and not parts.path.strip("/") and not parts.query
        if value and (parts.scheme not in {"http", "https"} or not plain):
            raise ValueError("use the address of an S3 store, such as https://s3.agency.example:9000")
        return value.rstrip("/")

    @field_validator("s3_sse", mode="after")
    @classmethod
    def _known_encryption(cls, value: str) -> str:
        if value not in {"", "AES256", "aws:kms", "aws:kms:dsse"}:
            raise ValueError(f"{value!r} is no server-side encryption; use AES256, aws:kms or aws:kms:dsse")
        return value

    @field_validator("public_url", mode="after")
    @classmethod
    def _whole_url(cls, value: str) -> str:
        parts = _split_url(value)
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            raise ValueError("use the address under which people reach the web role, such as https://postern.example")
        return value.rstrip("/")

    @field_validator("provider", mode="after")
    @classmethod
    def _known_provider(cls, value: str) -> str:
        if value not in {"simulator", "twilio"}:
            raise ValueError(f"there is no provider {value!r}; use simulator or twilio")
        return value

    @property
    def database(self) -> str:
        """The database's URL; SQLite under home unless set."""
        return self.database_url or f"sqlite:///{self.home / 'postern.db'}"

    @property
    def blob_folder(self) -> Path:
        """The folder of the local blob store."""
        return Path(urlsplit(self.blob_url).path) if self.blob_url.startswith("file:") else self.home / "blobs"

    @property
    def bucket(self) -> str:
        """The bucket of S3, or nothing where blobs are in a folder."""
        return urlsplit(self.blob_url).netloc if self.blob_url.startswith("s3:") else ""

    @property
    def bucket_prefix(self) -> str:
        """What the keys of blobs in the bucket begin with, without slashes at its ends."""
        return urlsplit(self.blob_url).path.strip("/")

    @property
    def repeat_interval(self) -> timedelta:
        """How long the same bytes of a campaign are a probable repeat: a day in production, elsewhere never."""
        if self.repeat_window is not None:
            return timedelta(hours=self.repeat_window)
        return timedelta(hours=24 if self.environment is Environment.PRODUCTION else 0)


class IntakeSettings(StoreSettings, GateSettings):
    """What intake knows: the gate's folders on one side, database and blobs on the other."""


class KeyedSettings(StoreSettings):
    """What the roles know that have the secret key; it is not kept here, but told with all else that is wrong."""

    @override
    @classmethod
    def _beside_fields(cls, _values: Mapping[str, str | None]) -> list[str]:
        text = _values.get(SECRET_KEY)
        try:
            if text:
                decoded(text)
        except ValueError as error:
            return [f"{SECRET_KEY}=…: {error}"]
        return []


class WorkerSettings(KeyedSettings):
    """What a worker knows."""

    smtp_url: str = Field(default="", repr=False)
    mail_from: str = "Postern <postern@localhost>"
    header_notice: str = "This is a test message used for training purposes."  # stands first in test
    footer_english: str = "This is an automated message sent by the Singapore Government."
    footer_chinese: str = "这是新加坡政府发送的自动信息。"
    footer_malay: str = "Ini ialah mesej automatik yang dihantar oleh Pemerintah Singapura."
    footer_tamil: str = "இது சிங்கப்பூர் அரசாங்கம் அனுப்பிய தானியங்கிச் செய்தி."
    twilio_account_sid: str = Field(default="", pattern=r"^(AC[0-9a-fA-F]{32})?$", repr=False)
    twilio_api_key_sid: str = Field(default="", pattern=r"^(SK[0-9a-fA-F]{32})?$", repr=False)
    twilio_api_key_secret: str = Field(default="", repr=False)
    twilio_messaging_service_sid: str = Field(default="", pattern=r"^(MG[0-9a-fA-F]{32})?$", repr=False)
    twilio_rate: float = Field(default=100, gt=0, le=10_000)  # segments a second, over all campaigns for the public
    twilio_url: str = "https://api.twilio.com"
    validation_timeout: float = Field(default=120, gt=0)  # seconds for one file
    validation_memory: int = Field(default=1024, gt=0)  # MiB of resident memory for one file
    drain_timeout: float = Field(default=30, ge=0)
    reconcile_interval: float = Field(default=30, gt=0)  # seconds between two looks for what stands still
    report_days: int = Field(default=30, ge=1)  # how long reports are kept
    upload_days: int = Field(default=90, ge=1)  # how long uploaded files are kept once they have their outcome
    job_days: int = Field(default=7, ge=2)  # how long the engine remembers jobs that are done

    @model_validator(mode="after")
    def _whole_account(self) -> Self:
        names = ("account_sid", "api_key_sid", "api_key_secret", "messaging_service_sid")
        missing = [f"{PREFIX}TWILIO_{name.upper()}" for name in names if not getattr(self, f"twilio_{name}")]
        if self.provider == "twilio" and missing:
            raise ValueError(f"{PREFIX}PROVIDER=twilio needs {', '.join(missing)}, too")
        return self

    @field_validator("twilio_url", mode="after")
    @classmethod
    def _known_api(cls, value: str) -> str:
        if not _API.fullmatch(value) or not _has_host(value):
            raise ValueError("use the address of Twilio's API, https://api.twilio.com, or of what stands in for it")
        parts = _split_url(value)
        return parts._replace(netloc=parts.netloc.lower()).geturl().rstrip("/")

    @field_validator("smtp_url", mode="after")
    @classmethod
    def _known_mail(cls, value: str) -> str:
        if value.startswith(("smtp:", "smtps:")):
            SmtpServer.from_url(value)
        elif value and _split_url(value).scheme != "eml":
            raise ValueError("use smtp://user:password@host:587, smtps://…, eml:/folder, or leave it out")
        return value

    @field_validator("mail_from", mode="after")
    @classmethod
    def _whole_sender(cls, value: str) -> str:
        if "@" not in parseaddr(value)[1]:
            raise ValueError("use an address such as Postern <postern@agency.example>")
        return value

    @property
    def scratch_folder(self) -> Path:
        """Where a file lies while it is judged; nothing in it is needed afterwards."""
        return self.home / "scratch"

    @property
    def mail_folder(self) -> Path:
        """Where mails are written as files when no SMTP server is set."""
        if self.smtp_url.startswith("eml:") and len(self.smtp_url) > len("eml:"):
            return Path(self.smtp_url.removeprefix("eml:"))
        return self.home / "mail"


class WebSettings(KeyedSettings):
    """What the web role knows."""

    http_host: str = "127.0.0.1"
    http_port: int = Field(default=8080, ge=0, le=65535)
    twilio_auth_token: str = Field(default="", repr=False)  # with it the signatures of Twilio's callbacks are checked
    twilio_sender_name: str = "gov.sg"  # the sender that members of the public should see

    @field_validator("http_host", mode="after")
    @classmethod
    def _address(cls, value: str) -> str:
        if value != "localhost":
            ip_address(value)
        return value


class ServeSettings(WorkerSettings, WebSettings, IntakeSettings):
    """What the supervisor of all roles on one machine knows."""


def _has_host(url: str) -> bool:
    """Whether its host is a name or a whole IP address, and its port, where it names one, a port."""
    parts = _split_url(url)
    host = parts.hostname or ""
    try:
        if ":" in host or host.rpartition(".")[2][:1].isdigit():
            ip_address(host)
        port = parts.port
    except ValueError:
        return False
    return port != 0


def _split_url(value: str) -> SplitResult:
    try:
        return urlsplit(value)
    except ValueError:  # whose text may repeat the password
        raise ValueError("this is no URL") from None


def _explain(error: ValidationError) -> list[str]:
    lines = []
    for problem in error.errors():
        name = PREFIX + "_".join(str(part) for part in problem["loc"][:1]).upper()
        reason = problem["msg"].removeprefix("Value error, ")
        if not problem["loc"]:  # about several together; the input is all of them
            lines.append(reason)
            continue
        is_secret = name.endswith(("_URL", "_SID", "_SECRET", "_TOKEN"))  # a URL may hold a password
        shown = "…" if is_secret else repr(problem["input"])
        lines.append(f"{name}={shown}: {reason}")
    return lines
