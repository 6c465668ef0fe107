"""The gate's settings: limits, policy and balancers, and what is wrong with them."""

from ipaddress import ip_network

import pytest

from postern.errors import SettingsError
from postern.settings import GateSettings, SshPolicy


def test_balancers_are_networks() -> None:
    """Single addresses, too, and IPv6."""
    settings = GateSettings.load({"POSTERN_PROXY_FROM": "10.0.0.0/8, 192.0.2.1,2001:db8::/32"})
    assert settings.proxy_from == (ip_network("10.0.0.0/8"), ip_network("192.0.2.1/32"), ip_network("2001:db8::/32"))
    assert GateSettings.load({}).proxy_from == ()


def test_the_policy_has_two_names() -> None:
    """The compatible one unless it is said."""
    assert GateSettings.load({}).ssh_policy is SshPolicy.COMPATIBLE
    assert GateSettings.load({"POSTERN_SSH_POLICY": "strict"}).ssh_policy is SshPolicy.STRICT


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("POSTERN_PROXY_FROM", "10.0.0.1/8"),
        ("POSTERN_PROXY_FROM", "balancer.example"),
        ("POSTERN_SSH_POLICY", "lax"),
        ("POSTERN_MAX_GUESTS", "0"),
        ("POSTERN_MAX_SESSIONS", "0"),
        ("POSTERN_BAN_POINTS", "-1"),
        ("POSTERN_DISK_RESERVE", "much"),
        ("POSTERN_GATE_METRICS_PORT", "65536"),
        ("POSTERN_GATE_PROCESSES", "0"),
    ],
)
def test_what_cannot_be_is_named(name: str, value: str) -> None:
    """The variable stands in the message."""
    with pytest.raises(SettingsError, match=name):
        GateSettings.load({name: value})
