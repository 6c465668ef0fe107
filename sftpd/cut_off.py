"""Whether the end of a file looks cut off. Pure.

An interrupted client (SIGINT to `sftp`, a cancelled job of JSch) closes a truncated file in good order and exits 0, so
its CLOSE is no sign. What it has sent are whole blocks of its own size, and they seldom end where a record does. A
whole file ends with a line end, or with a write that is shorter than the others; one that does neither (no line end,
and by chance one or more full blocks) looks cut off as well, and a person decides.
"""

KNOWN_BLOCKS = frozenset(
    {
        261_120,  # OpenSSH's sftp and scp since 8.7, asyncssh
        65_536,  # Node's ssh2
        32_768,  # OpenSSH before, paramiko, lftp, rclone, libssh, Net::SFTP::Foreign
        32_739,  # WinSCP, SSH.NET, sshj: a packet of 32 KiB less what is not data, with our handles of 4 bytes
        32_597,  # JSch
        32_000,  # Ruby's net-sftp
    }
)  # bytes of a write; PuTTY's 4,096 are left out: a whole file is too likely to be a multiple of them


def looks_cut_off(*, write_block: int, last_byte: bytes) -> bool:
    """Whether a file ends inside a record and with a full block.

    Args:
        write_block: bytes of every write, the last one too; 0 where they differ.
        last_byte: of the file.
    """
    return write_block in KNOWN_BLOCKS and last_byte != b"\n"
