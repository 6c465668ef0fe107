"""put_paramiko.py HOST PORT USER KEY KNOWN_HOSTS TASK LOCAL REMOTE [FINAL]."""

import sys
from pathlib import Path

import paramiko


class BrokenFile:
    """A local file that cannot be read beyond its first 400,000 bytes."""

    def __init__(self, path: str) -> None:
        self._file = Path(path).open("rb")  # noqa: SIM115 - as long as the process

    def read(self, size: int) -> bytes:
        if self._file.tell() > 400_000:
            raise OSError("Input/output error")
        return self._file.read(size)


host, port, user, key, known_hosts, task, local, remote, *final = sys.argv[1:]
with paramiko.SSHClient() as client:
    client.load_host_keys(known_hosts)
    client.connect(host, int(port), user, key_filename=key, allow_agent=False, look_for_keys=False)
    with client.open_sftp() as sftp:
        if task == "cancel":
            sftp.putfo(BrokenFile(local), remote)
        else:
            sftp.put(local, remote)
        if task == "rename":
            sftp.posix_rename(remote, final[0])
