"""What is built is what is promised: exactly our packages, with their data, and it runs from there."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {"postern", "keys", "sftpd", "storage", "pipeline", "dispatch", "notifier", "web"}
DATA = {
    "postern/sms/avoidable_characters.csv",
    "postern/py.typed",
    "notifier/templates/accepted/body.html",
    "notifier/templates/rejected/body.txt",
    "storage/migrations/env.py",
    "storage/migrations/versions/0001_first_tables.py",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT], check=True
    )
    (built,) = folder.glob("postern-*.whl")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_the_wheel_holds_exactly_our_packages(wheel: Path) -> None:
    """No tests, no benchmarks, nothing under a name of somebody else's."""
    tops = {path.name for path in wheel.iterdir() if not path.name.endswith(".dist-info")}
    assert tops == PACKAGES


def test_every_module_and_data_file_is_in_the_wheel(wheel: Path) -> None:
    """A package that was forgotten in pyproject.toml would be missing only after a release."""
    tracked = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True)
    names = {name for name in tracked.stdout.splitlines() if name.endswith(".py")}
    built = {str(path.relative_to(wheel)) for path in wheel.rglob("*") if path.is_file()}
    assert names | DATA <= built


def test_the_built_command_works_on_a_fresh_home(wheel: Path, tmp_path: Path) -> None:
    """Migrations and templates are found where the wheel has them."""
    campaign = tmp_path / "campaign.yaml"
    campaign.write_text('{name: A, agency: B, templates: {english: "Dear {{name}}"}}')
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(wheel), "POSTERN_HOME": str(tmp_path / "home")}
    result = subprocess.run(
        [sys.executable, "-P", "-c", "import postern; print(postern.__file__); from postern.cli import main; main()",
         "campaign", "create", str(campaign)],
        env=environ, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert str(wheel) in result.stdout.splitlines()[0]
    assert "Created campaign_" in result.stdout
