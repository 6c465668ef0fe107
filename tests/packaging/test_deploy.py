"""What deploy/ holds: linters accept it, the settings that it names exist, and the gate is given nothing."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from dotenv import dotenv_values
from yamllint import linter
from yamllint.config import YamlLintConfig

from postern.errors import SettingsError
from postern.secret import VARIABLE
from postern.settings import GateSettings, IntakeSettings, ServeSettings, WebSettings, WorkerSettings

DEPLOY = Path(__file__).parents[2] / "deploy"
EXAMPLE = DEPLOY / "postern.env.example"
UNITS = sorted(DEPLOY.glob("*.service"))
ROLE_UNITS = {"gate", "intake", "worker", "web"}
MANIFESTS = sorted(path for path in (DEPLOY / "kubernetes").glob("*.yaml") if path.name != "kustomization.yaml")
KNOWN = {*ServeSettings.variables(), VARIABLE}
ROLES = {"gate": GateSettings, "intake": IntakeSettings, "worker": WorkerSettings, "web": WebSettings}
YAMLLINT = YamlLintConfig(
    """
    extends: default
    rules:
      line-length: {max: 120}
      document-start: disable
    """
)


# Settings


def example(pattern: str) -> dict[str, str]:
    """The settings of the example whose lines look so."""
    return dict(re.findall(pattern, EXAMPLE.read_text(encoding="utf-8"), re.MULTILINE))


def test_the_example_has_every_setting_once() -> None:
    """None is forgotten, none has been renamed or removed."""
    names = re.findall(r"^#?(POSTERN_\w+)=", EXAMPLE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(names) == sorted(KNOWN)


def test_the_defaults_of_the_example_are_the_defaults() -> None:
    """Who takes the # away from a line changes nothing."""
    defaults = example(r"^#(POSTERN_\w+)=(.*)$")
    assert ServeSettings.load(defaults) == ServeSettings.load({})


def test_what_the_example_sets_can_be_used(tmp_path: Path) -> None:
    """As the settings file of a home."""
    shutil.copy(EXAMPLE, tmp_path / "postern.env")
    settings = ServeSettings.load({"POSTERN_HOME": str(tmp_path)})
    assert settings.public_url == dotenv_values(EXAMPLE)["POSTERN_PUBLIC_URL"]


# systemd


def unit(path: Path) -> Mapping[str, list[str]]:
    """The lines of a unit's [Service], by name; a name may stand there several times."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", path.read_text().partition("[Service]")[2], re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units, with a command that is there."""
    if not shutil.which("systemd-analyze"):
        assert not os.environ.get("CI"), "systemd-analyze is missing"
        pytest.skip("systemd-analyze is missing (Debian: apt-get install systemd)")
    command = Path(sys.executable).with_name("postern")
    for path in [*UNITS, *DEPLOY.glob("*.socket")]:
        (tmp_path / path.name).write_text(path.read_text().replace("/opt/postern/bin/postern", str(command)))
    return tmp_path


def test_units_are_understood(installed: Path) -> None:
    """By systemd itself, without a warning."""
    for path in sorted(installed.iterdir()):
        found = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, check=False)
        assert (found.returncode, found.stderr) == (0, ""), path.name


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_units_are_hardened(installed: Path, path: Path) -> None:
    """An exposure of at most 2 of 10, by systemd's own reckoning."""
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", installed / path.name]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout.splitlines()[-1]


def test_each_role_is_a_user_of_its_own_with_a_home_that_is_made() -> None:
    """None of them root; the names in the units, in sysusers and in tmpfiles are the same."""
    users = {path.stem: unit(path)["User"][0] for path in UNITS}
    assert {name: users[f"postern-{name}"] for name in ROLE_UNITS} == {name: f"postern-{name}" for name in ROLE_UNITS}
    made = re.findall(r"^u (\S+)", (DEPLOY / "postern.sysusers.conf").read_text(), re.MULTILINE)
    assert sorted(made) == sorted(users.values())
    folders = re.findall(r"^d (\S+)\s+\d+\s+(\S+)", (DEPLOY / "postern.tmpfiles.conf").read_text(), re.MULTILINE)
    for path in UNITS:
        (home,) = [value.partition("=")[2] for value in unit(path)["Environment"]]
        assert unit(path)["ReadWritePaths"] == [home]
        assert home in {folder for folder, _user in folders}


def test_the_gates_unit_gives_it_nothing() -> None:
    """No file with settings, no network of its own, no capability."""
    gate = unit(DEPLOY / "postern-gate.service")
    assert "EnvironmentFile" not in gate
    assert gate["Environment"] == ["POSTERN_HOME=/srv/postern-gate"]
    assert (gate["PrivateNetwork"], gate["CapabilityBoundingSet"]) == (["yes"], [""])
    for other in ROLE_UNITS - {"gate"}:
        assert unit(DEPLOY / f"postern-{other}.service")["EnvironmentFile"] == [f"/etc/postern/{other}.env"]


# Containers


def test_the_containerfile_is_understood() -> None:
    """By hadolint, without a warning."""
    command = Path(sys.executable).with_name("hadolint")
    found = subprocess.run([command, DEPLOY / "Containerfile"], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")


def test_the_image_runs_as_nobody_special_and_holds_no_secret() -> None:
    """All of our packages are in it, and nothing else of the checkout."""
    text = (DEPLOY / "Containerfile").read_text()
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["10001:10001"]
    assert not re.search(r"^(ARG|ENV) .*(PASSWORD|SECRET|KEY|TOKEN|_URL)", text, re.MULTILINE)
    copied = {name for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE) for name in line.split()}
    packages = {path.parent.name for path in DEPLOY.parent.glob("*/__init__.py")}
    assert copied == packages | {"pyproject.toml", "constraints.txt", "README.md"}
    allowed = re.findall(r"^!(.*)$", (DEPLOY / "Containerfile.dockerignore").read_text(), re.MULTILINE)
    assert set(allowed) == copied


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.yaml")), ids=lambda path: path.name)
def test_yaml_is_well_formed(path: Path) -> None:
    """By yamllint, without a warning."""
    assert list(linter.run(path.read_text(), YAMLLINT)) == []


@pytest.fixture
def compose() -> Any:
    """The compose file."""
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def test_compose_names_settings_that_exist(compose: Any) -> None:
    """And those that each role reads; secrets come from the environment file, which the example has."""
    for role, settings in ROLES.items():
        named = {name for name in compose["services"][role]["environment"] if name.startswith("POSTERN_")}
        assert named <= {*settings.variables(), VARIABLE}, role
    text = (DEPLOY / "compose.yaml").read_text()
    wanted = set(re.findall(r"\$\{(\w+)", text))
    assert wanted == set(dotenv_values(DEPLOY / "compose.env.example"))
    assert not re.search(r"(PASSWORD|SECRET\w*|KEY): (?!\$\{)", text)


TWILIO_ACCOUNT = {
    f"POSTERN_TWILIO_{name}" for name in ("ACCOUNT_SID", "API_KEY_SID", "API_KEY_SECRET", "MESSAGING_SERVICE_SID")
}
TWILIO_TOKEN = "POSTERN_TWILIO_AUTH_TOKEN"


def test_compose_gives_twilios_secrets_to_those_who_need_them(compose: Any) -> None:
    """The worker sends and web checks reports; everybody behind the gate knows which provider it is."""
    services = compose["services"]
    named = {role: set(services[role]["environment"]) for role in ROLES}
    assert {role for role in ROLES if named[role] & TWILIO_ACCOUNT} == {"worker"}
    assert named["worker"] >= TWILIO_ACCOUNT
    assert {role for role in ROLES if TWILIO_TOKEN in named[role]} == {"web"}
    assert {role for role in ROLES if "POSTERN_PROVIDER" in named[role]} == {"intake", "worker", "web"}
    for role in ROLES:
        for name in named[role] & {*TWILIO_ACCOUNT, TWILIO_TOKEN}:
            assert re.fullmatch(r"\$\{\w+:-\}", services[role]["environment"][name]), name


def test_what_compose_does_not_set_is_as_if_it_were_not_there(compose: Any) -> None:
    """Empty values are the defaults; the whole account is asked for once the provider is Twilio."""
    for role, settings in (("worker", WorkerSettings), ("web", WebSettings)):
        empty = {name: "" for name, value in compose["services"][role]["environment"].items() if ":-}" in str(value)}
        assert settings.load(empty) == settings.load({})
    with pytest.raises(SettingsError, match="POSTERN_TWILIO_API_KEY_SECRET"):
        WorkerSettings.load(dict.fromkeys(TWILIO_ACCOUNT, "") | {"POSTERN_PROVIDER": "twilio"})


def test_compose_gives_the_gate_a_volume_and_nothing_else(compose: Any) -> None:
    """It shares the volume with intake and its network with nobody; no secret is in its environment."""
    services = compose["services"]
    gate = services["gate"]
    assert set(gate["environment"]) <= set(GateSettings.variables())
    assert "env_file" not in gate
    assert "$" not in str(gate["environment"])
    assert {name for name, service in services.items() if set(service["networks"]) & set(gate["networks"])} == {"gate"}
    shared = {name for name, service in services.items() if set(service.get("volumes", ())) & set(gate["volumes"])}
    assert shared == {"gate", "intake"}
    for role in ROLES:
        service = services[role]
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])


# Kubernetes


def documents() -> Iterator[dict[str, Any]]:
    for path in MANIFESTS:
        yield from yaml.safe_load_all(path.read_text())


def found(kind: str, name: str) -> dict[str, Any]:
    (one,) = [one for one in documents() if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return one


def pods() -> dict[str, dict[str, Any]]:
    """The specification of each pod, by the part of Postern that it is."""
    workloads = [one for one in documents() if one["kind"] in {"Deployment", "Job"}]
    return {one["metadata"]["labels"]["app.kubernetes.io/component"]: one["spec"]["template"] for one in workloads}


def test_manifests_are_valid() -> None:
    """By the schemas of Kubernetes, strictly; and kustomize applies all but the placeholders."""
    for one in documents():
        kubernetes_validate.validate(one, "1.33", strict=True)
    kustomization = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())
    assert {*kustomization["resources"], "secrets.example.yaml"} == {path.name for path in MANIFESTS}


def test_pods_may_do_nothing_special() -> None:
    """What the restricted standard for pods asks, a file system that cannot be written, and bounded memory."""
    assert set(pods()) == {*ROLES, "migrate"}
    for part, pod in pods().items():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"], part
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        (container,) = spec["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
        assert part == "migrate" or container["readinessProbe"]


def environment(pod: dict[str, Any]) -> set[str]:
    """The names of what a pod finds in its environment."""
    (container,) = pod["spec"]["containers"]
    names = {one["name"] for one in container.get("env", ())}
    for source in container["envFrom"]:
        ((kind, reference),) = source.items()
        one = found({"configMapRef": "ConfigMap", "secretRef": "Secret"}[kind], reference["name"])
        names |= set(one.get("data", {})) | set(one.get("stringData", {}))
    return names


def test_kubernetes_names_settings_that_exist() -> None:
    """What a role finds beyond its own is not secret; secrets are placeholders here."""
    for part, pod in pods().items():
        assert {name for name in environment(pod) if name.startswith("POSTERN_")} <= KNOWN, part
    for one in documents():
        if one["kind"] == "Secret":
            assert all(re.fullmatch("<.*>", value) for value in one["stringData"].values())


def test_kubernetes_gives_twilios_secrets_to_those_who_need_them() -> None:
    """They are in Secrets, which may be left out with the simulator; the rest is in the settings."""
    found_in = {part: environment(pod) for part, pod in pods().items()}
    assert {part for part, names in found_in.items() if names & TWILIO_ACCOUNT} == {"worker"}
    assert found_in["worker"] >= TWILIO_ACCOUNT
    assert {part for part, names in found_in.items() if TWILIO_TOKEN in names} == {"web"}
    assert {part for part in ROLES if "POSTERN_PROVIDER" in found_in[part]} == {"intake", "worker", "web"}
    settings = found("ConfigMap", "postern")["data"]
    assert not set(settings) & {*TWILIO_ACCOUNT, TWILIO_TOKEN}
    assert WorkerSettings.load(settings).provider == "simulator"
    for part, name in (("worker", "postern-twilio"), ("web", "postern-twilio-reports")):
        (container,) = pods()[part]["spec"]["containers"]
        assert {"secretRef": {"name": name, "optional": True}} in container["envFrom"]


def test_kubernetes_gives_the_gate_a_volume_and_nothing_else() -> None:
    """No secret, no account, nobody that it may call; intake, on the same volume, is a pod of its own."""
    gate = pods()["gate"]
    assert environment(gate) <= set(GateSettings.variables())
    assert "secretRef" not in str(gate)
    policy = found("NetworkPolicy", "postern-gate")["spec"]
    labels = gate["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert (policy["policyTypes"], policy["egress"]) == (["Ingress", "Egress"], [])
    assert found("NetworkPolicy", "nobody")["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    claims = {
        part: [volume["persistentVolumeClaim"]["claimName"]]
        for part, pod in pods().items()
        for volume in pod["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    }
    assert claims == {"gate": ["postern-gate"], "intake": ["postern-gate"]}


def test_every_pod_has_a_network_policy() -> None:
    """Of its own; else it could call nobody."""
    for part, pod in pods().items():
        selector = found("NetworkPolicy", f"postern-{part}")["spec"]["podSelector"]["matchLabels"]
        assert selector.items() <= pod["metadata"]["labels"].items()
