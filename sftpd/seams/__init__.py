"""Everything that the gate takes from inside asyncssh, each with its reason, and a check that it is still there.

asyncssh is pinned to 2.24.x for the sake of this package; nothing else of the gate touches a private name of it.
The gate starts only where `check_seams` passes.
"""

from sftpd.seams.connections import GateConnection
from sftpd.seams.host_keys import HostKeys, host_key_pairs
from sftpd.seams.keys import available_key_exchanges, forbid_sha1
from sftpd.seams.names import prepared
from sftpd.seams.rehearsal import check_seams
from sftpd.seams.rehearsal_packets import SeamError
from sftpd.seams.requests import GarbledPacketError, GateHandler, Service
from sftpd.seams.sessions import SftpSession, bare_channel

__all__ = [
    "GarbledPacketError",
    "GateConnection",
    "GateHandler",
    "HostKeys",
    "SeamError",
    "Service",
    "SftpSession",
    "available_key_exchanges",
    "bare_channel",
    "check_seams",
    "forbid_sha1",
    "host_key_pairs",
    "prepared",
]
