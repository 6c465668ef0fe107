"""Settings: where they come from, what is wrong with them, and what they never tell."""

from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from postern.errors import SettingsError
from postern.model import Environment
from postern.settings import (
    GateSettings,
    IntakeSettings,
    ServeSettings,
    Settings,
    StoreSettings,
    WebSettings,
    WorkerSettings,
)

PASSWORD = "hunter2"
ROLES = [Settings, GateSettings, StoreSettings, IntakeSettings, WorkerSettings, WebSettings, ServeSettings]


def complaint(role: type[Settings], environ: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        role.load(environ)
    return str(caught.value)


def home_with(folder: Path, content: str | bytes) -> dict[str, str]:
    """An environment that names a home whose `postern.env` has this content."""
    (folder / "postern.env").write_bytes(content.encode() if isinstance(content, str) else content)
    return {"POSTERN_HOME": str(folder)}


@pytest.mark.parametrize("role", ROLES)
def test_every_role_starts_without_any_setting(role: type[Settings]) -> None:
    """The defaults are usable."""
    settings = role.load({})
    assert settings.home == Path.cwd() / "postern-data"
    assert (settings.environment, settings.timezone) == (Environment.PRODUCTION, ZoneInfo("Asia/Singapore"))


def test_home_is_absolute_whatever_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A role that changes its folder must not lose its home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert Settings.load({"POSTERN_HOME": "data"}).home == tmp_path / "data"
    assert Settings.load({"POSTERN_HOME": "~/data"}).home == tmp_path / "me" / "data"


def test_the_file_under_home_is_read(tmp_path: Path) -> None:
    """Quotes and comments are those of an environment file."""
    environ = home_with(tmp_path, "# ours\nPOSTERN_SFTP_PORT=2022\nexport POSTERN_LOG_LEVEL='debug'  # loud\n")
    settings = GateSettings.load(environ)
    assert (settings.sftp_port, settings.log_level) == (2022, "DEBUG")


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    """What is only in the file still counts."""
    environ = home_with(tmp_path, "POSTERN_SFTP_PORT=2022\nPOSTERN_SFTP_HOST=192.0.2.1\n")
    settings = GateSettings.load({**environ, "POSTERN_SFTP_PORT": "2023"})
    assert (settings.sftp_port, settings.sftp_host) == (2023, "192.0.2.1")


def test_a_value_in_the_file_is_taken_as_it_is(tmp_path: Path) -> None:
    """A password may look like a reference to another variable."""
    settings = WorkerSettings.load(home_with(tmp_path, "POSTERN_SMTP_URL='smtp://u:p${HOME}$x@mail.example'\n"))
    assert settings.smtp_url == "smtp://u:p${HOME}$x@mail.example"


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    """As one settings error, with its name."""
    assert f"{tmp_path}/postern.env cannot be read" in complaint(Settings, home_with(tmp_path, b"POSTERN_X=\xff\n"))


def test_an_empty_variable_is_one_that_is_not_set() -> None:
    """As where a deployment sets all of them, some to nothing."""
    assert GateSettings.load({"POSTERN_SFTP_PORT": "", "POSTERN_TIMEZONE": ""}).sftp_port == 2222


def test_all_that_is_wrong_is_told_at_once() -> None:
    """One start, one list."""
    told = complaint(
        ServeSettings,
        {
            "POSTERN_ENVIRONMENT": "prod",
            "POSTERN_TIMEZONE": "Mars/Olympus",
            "POSTERN_LOG_LEVEL": "loud",
            "POSTERN_SFTP_PORT": "65536",
            "POSTERN_HTTP_PORT": "http",
            "POSTERN_HTTP_HOST": "example.org",
            "POSTERN_MAX_FILE_SIZE": "0",
            "POSTERN_DATABASE_URL": "mysql://db",
            "POSTERN_BLOB_URL": "ftp://blobs",
            "POSTERN_PUBLIC_URL": "postern.example",
            "POSTERN_SMTP_URL": "smtp://mail?starttls=maybe",
            "POSTERN_MAIL_FROM": "Postern",
            "POSTERN_SECRET_KEY": "too short",
            "POSTERN_PROVIDER": "pigeon",
            "POSTERN_TWILIO_URL": "api.twilio.com",
            "POSTERN_VALIDATION_MEMORY": "-1",
            "POSTERN_PRICE_LOCAL": "nan",
        },
    )
    first, *lines = told.splitlines()
    assert first == "These settings cannot be used:"
    assert sorted(line.split("=")[0].strip() for line in lines) == [
        "POSTERN_BLOB_URL",
        "POSTERN_DATABASE_URL",
        "POSTERN_ENVIRONMENT",
        "POSTERN_HTTP_HOST",
        "POSTERN_HTTP_PORT",
        "POSTERN_LOG_LEVEL",
        "POSTERN_MAIL_FROM",
        "POSTERN_MAX_FILE_SIZE",
        "POSTERN_PRICE_LOCAL",
        "POSTERN_PROVIDER",
        "POSTERN_PUBLIC_URL",
        "POSTERN_SECRET_KEY",
        "POSTERN_SFTP_PORT",
        "POSTERN_SMTP_URL",
        "POSTERN_TIMEZONE",
        "POSTERN_TWILIO_URL",
        "POSTERN_VALIDATION_MEMORY",
    ]


@pytest.mark.parametrize(
    "value", ["https://api.twilio.com/", "http://127.0.0.1:4010", "http://[::1]:1/stand-in", "http://a_b"]
)
def test_what_stands_in_for_twilio_has_an_address(value: str) -> None:
    """By name or number, with a port and a path of its own; a name has no upper case."""
    assert ServeSettings.load({"POSTERN_TWILIO_URL": value}).twilio_url == value.rstrip("/")
    shouted = value.upper().replace("STAND-IN", "stand-in")
    assert ServeSettings.load({"POSTERN_TWILIO_URL": shouted}).twilio_url == value.rstrip("/")


@pytest.mark.parametrize(
    "value",
    [
        "api.twilio.com",
        "ftp://api.twilio.com",
        "https://",
        "https://a..b",
        f"https://{'a' * 64}.b",
        "https://api.twilio.com:0",
        "https://api.twilio.com:65536",
        "https://api.twilio.com:x",
        "https://api.twilio.com/?a=b",
        "https://api.twilio.com/#a",
        "https://api.twilio.com\\a",
        "http://[::g]",
        "http://[1:2]",
        "http://999.1.1.1",
        "http://1.2.3.04",
        "http://1",
    ],
)
def test_an_address_that_no_message_could_go_to_is_refused(value: str) -> None:
    """At the start, and not by a doubt for each message."""
    assert "POSTERN_TWILIO_URL" in complaint(ServeSettings, {"POSTERN_TWILIO_URL": value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE", f"mysql://postern:{PASSWORD}@db/postern"),
        ("DATABASE", f"postgresql+psycopg://postern:{PASSWORD}@db/postern"),
        ("BLOB", f"s3://{PASSWORD}@bucket"),
        ("BLOB", f"http://[{PASSWORD}"),
        ("PUBLIC", f"ftp://{PASSWORD}@host"),
        ("PUBLIC", f"https://u:{PASSWORD}℀@host"),
        ("SMTP", f"imap://u:{PASSWORD}@mail"),
        ("SMTP", f"smtp://u:{PASSWORD}℀@mail"),
        ("SMTP", f"smtp://u:{PASSWORD}＠@mail"),
        ("SMTP", f"smtp://[{PASSWORD}]"),
        ("SMTP", f"smtp://u:{PASSWORD}/@mail"),
        ("TWILIO", f"https://u:{PASSWORD}@host"),
        ("TWILIO", f"https://u:{PASSWORD}/@host"),
        ("TWILIO", f"https://u:{PASSWORD}"),
    ],
)
def test_a_url_that_cannot_be_used_is_not_repeated(name: str, value: str) -> None:
    """Neither by us nor by a library's complaint: it may hold a password."""
    told = complaint(ServeSettings, {f"POSTERN_{name}_URL": value})
    assert f"POSTERN_{name}_URL=…: " in told
    assert PASSWORD not in told


@pytest.mark.parametrize("role", [WorkerSettings, WebSettings, ServeSettings])
def test_a_secret_key_that_is_none_is_told_and_not_shown(role: type[Settings], tmp_path: Path) -> None:
    """By the roles that have it, from the file too; the others do not look at it."""
    environ = home_with(tmp_path, f"POSTERN_SECRET_KEY={PASSWORD}\n")
    told = complaint(role, environ)
    assert "POSTERN_SECRET_KEY=…: needs 32 random bytes" in told
    assert PASSWORD not in told
    for other in (GateSettings, IntakeSettings, StoreSettings):
        assert other.load(environ).home == tmp_path


def test_good_urls_are_not_shown_either() -> None:
    """Whoever prints or logs the settings tells no password."""
    settings = ServeSettings.load(
        {
            "POSTERN_DATABASE_URL": f"postgresql://postern:{PASSWORD}@db/postern",
            "POSTERN_SMTP_URL": f"smtp://u:{PASSWORD}@mail",
        }
    )
    assert PASSWORD in settings.database
    assert PASSWORD in settings.smtp_url
    assert PASSWORD not in f"{settings!r} {settings} {[settings]}"


def test_the_gate_reads_no_secret() -> None:
    """Its variables name no database, store, mail, provider or key; `serve` hands it only these."""
    words = (
        "DATABASE",
        "BLOB",
        "S3",
        "SMTP",
        "MAIL",
        "PROVIDER",
        "TWILIO",
        "SECRET",
        "KEY",
        "PASSWORD",
        "TOKEN",
        "URL",
    )
    assert [name for name in GateSettings.variables() if any(word in name for word in words)] == []
    assert {"POSTERN_HOME", "POSTERN_SFTP_PORT", "POSTERN_MAX_FILE_SIZE"} <= set(GateSettings.variables())


def test_the_gate_does_not_look_at_what_is_not_its_own() -> None:
    """A wrong database URL in the environment does not stop it, nor does it come to know it."""
    settings = GateSettings.load({"POSTERN_DATABASE_URL": f"mysql://u:{PASSWORD}@db"})
    assert not hasattr(settings, "database_url")


@pytest.mark.parametrize(
    ("value", "suffixes"),
    [(".part", (".part",)), (" .part , .tmp,,", (".part", ".tmp")), (",", ())],
)
def test_temporary_suffixes_are_a_list(value: str, suffixes: tuple[str, ...]) -> None:
    """Separated by commas; blanks around them do not count."""
    assert GateSettings.load({"POSTERN_TEMPORARY_SUFFIXES": value}).temporary_suffixes == suffixes


def test_settings_do_not_change(tmp_path: Path) -> None:
    """They are one frozen object a role."""
    settings = Settings(home=tmp_path)
    with pytest.raises(ValueError, match="frozen"):
        settings.log_level = "DEBUG"


def test_everything_is_kept_under_home_by_default(tmp_path: Path) -> None:
    """Database, blobs, mails, spool and keys."""
    settings = ServeSettings(home=tmp_path)
    assert settings.database == f"sqlite:///{tmp_path}/postern.db"
    assert [settings.blob_folder, settings.mail_folder, settings.run_folder] == [
        tmp_path / "blobs",
        tmp_path / "mail",
        tmp_path / "run",
    ]
    assert [settings.spool_folder, settings.gate_folder] == [tmp_path / "spool", tmp_path / "gate"]


def test_places_can_be_set() -> None:
    """Old forms of a PostgreSQL URL are understood, a slash at the end of an address does not count."""
    settings = ServeSettings.load(
        {
            "POSTERN_DATABASE_URL": "postgres://db/postern",
            "POSTERN_BLOB_URL": "file:///srv/blobs",
            "POSTERN_SMTP_URL": "eml:/srv/mail",
            "POSTERN_PUBLIC_URL": "https://postern.example/",
        }
    )
    assert settings.database == "postgresql://db/postern"
    assert (settings.blob_folder, settings.mail_folder) == (Path("/srv/blobs"), Path("/srv/mail"))
    assert settings.public_url == "https://postern.example"


@pytest.mark.parametrize(
    ("environ", "hours"),
    [
        ({}, 24),
        ({"POSTERN_ENVIRONMENT": "test"}, 0),
        ({"POSTERN_ENVIRONMENT": "loadtest"}, 0),
        ({"POSTERN_REPEAT_WINDOW": "0"}, 0),
        ({"POSTERN_REPEAT_WINDOW": "1.5"}, 1.5),
        ({"POSTERN_REPEAT_WINDOW": "48", "POSTERN_ENVIRONMENT": "test"}, 48),
    ],
)
def test_repeats_are_held_for_a_day_in_production(environ: dict[str, str], hours: float) -> None:
    """Elsewhere never, unless it is said for how many hours."""
    assert IntakeSettings.load(environ).repeat_interval == timedelta(hours=hours)


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "a day"])
def test_a_window_is_a_number_of_hours(value: str) -> None:
    """Anything else is told."""
    assert "POSTERN_REPEAT_WINDOW" in complaint(IntakeSettings, {"POSTERN_REPEAT_WINDOW": value})


TWILIO = {
    "POSTERN_PROVIDER": "twilio",
    "POSTERN_TWILIO_ACCOUNT_SID": f"AC{'0' * 32}",
    "POSTERN_TWILIO_API_KEY_SID": f"SK{'0' * 32}",
    "POSTERN_TWILIO_API_KEY_SECRET": "a secret of the key",
    "POSTERN_TWILIO_MESSAGING_SERVICE_SID": f"MG{'0' * 32}",
}


def test_twilio_needs_a_whole_account() -> None:
    """All that is missing is named at once; with the simulator nothing is needed."""
    assert WorkerSettings.load(TWILIO).provider == "twilio"
    assert WorkerSettings.load({}).provider == "simulator"
    told = complaint(WorkerSettings, {name: TWILIO[name] for name in list(TWILIO)[:2]})
    assert all(name in told for name in list(TWILIO)[2:])
    assert "POSTERN_TWILIO_ACCOUNT_SID" not in told


@pytest.mark.parametrize("name", [name for name in TWILIO if name.endswith("_SID")])
def test_what_is_no_sid_is_refused_and_not_shown(name: str) -> None:
    """Two may have been swapped, and the wrong one may be the secret."""
    told = complaint(WorkerSettings, {**TWILIO, name: "a secret of the key"})
    assert f"{name}=…: " in told
    assert "a secret" not in told


def test_twilios_secrets_are_not_shown() -> None:
    """Whoever prints or logs the settings tells none; the web role knows no key at all."""
    values = {**TWILIO, "POSTERN_TWILIO_AUTH_TOKEN": "a token of the account"}
    for settings in (WorkerSettings.load(values), WebSettings.load(values), ServeSettings.load(values)):
        shown = f"{settings!r} {settings} {[settings]}"
        assert not [value for name, value in values.items() if name != "POSTERN_PROVIDER" and value in shown]
    assert not [name for name in WebSettings.variables() if "API_KEY" in name]


def test_a_provider_that_is_not_there_is_named() -> None:
    """With those that are."""
    assert "there is no provider 'pigeons'; use simulator or twilio" in complaint(
        WorkerSettings, {"POSTERN_PROVIDER": "pigeons"}
    )
