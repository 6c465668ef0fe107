"""The settings file of a home, `postern.env`."""

from pathlib import Path

from dotenv import dotenv_values

from postern.errors import SettingsError


def read_settings_file(home: Path) -> dict[str, str | None]:
    """What `postern.env` says; nothing where there is none.

    Raises:
        SettingsError: it cannot be read.
    """
    path = home / "postern.env"
    try:
        return dict(dotenv_values(path, interpolate=False)) if path.is_file() else {}  # a password may hold ${…}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from None
