"""The preparation of a user name (SASLprep, RFC 4013), at once where there is nothing to prepare.

asyncssh looks up each character in eleven tables, for each try to log in: a twentieth of a login. Printable ASCII, as
every campaign's id is, comes out of that as it went in (RFC 4013, 2: it is mapped to itself and nowhere prohibited).
"""

from asyncssh import connection
from asyncssh.saslprep import saslprep


def prepared(name: str) -> str:
    """A user name as it is compared; raises asyncssh's error for one that may not be."""
    return name if name.isascii() and name.isprintable() else saslprep(name)


vars(connection)["saslprep"] = prepared
