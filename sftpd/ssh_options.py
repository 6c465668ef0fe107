"""What the gate asks of asyncssh where that takes options: a public key and SFTP. All else that it offers is off."""

from collections.abc import Callable

import asyncssh

from postern.settings import GateSettings
from sftpd.algorithms import algorithm_options
from sftpd.seams import HostKeys

KEEPALIVE = 30.0  # seconds of silence before a client is asked; after three without an answer it is gone


def ssh_options(
    settings: GateSettings, keys: HostKeys, server_factory: Callable[[], asyncssh.SSHServer]
) -> asyncssh.SSHServerConnectionOptions:
    """The options of all connections that begin while these are the host keys."""
    return asyncssh.SSHServerConnectionOptions(
        server_factory=server_factory,
        server_host_keys=keys.used,
        server_version="Postern",
        login_timeout=settings.login_timeout,
        keepalive_interval=KEEPALIVE,
        config=None,  # no sshd_config of the machine
        public_key_auth=True,
        password_auth=False,
        kbdint_auth=False,
        host_based_auth=False,
        gss_host=None,
        x509_trusted_certs=None,
        allow_pty=False,
        agent_forwarding=False,
        x11_forwarding=False,
        line_editor=False,
        encoding=None,
        **algorithm_options(settings.ssh_policy),
    )
