"""put_asyncssh.py HOST PORT USER KEY KNOWN_HOSTS TASK LOCAL REMOTE [FINAL]."""

import asyncio
import sys

import asyncssh


async def main() -> None:
    host, port, user, key, known_hosts, task, local, remote, *final = sys.argv[1:]
    options = {"username": user, "client_keys": [key], "known_hosts": known_hosts, "config": None, "agent_path": None}
    async with (
        asyncssh.connect(host, int(port), **options) as connection,
        connection.start_sftp_client() as sftp,
    ):
        await sftp.put(local, remote)
        if task == "rename":
            await sftp.posix_rename(remote, final[0])


asyncio.run(main())
