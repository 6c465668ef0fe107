"""The command line, and the composition roots of the roles: the one place that knows all programs."""

import os

_OWNER_ONLY, _NO_OTHERS = 0o077, 0o007


def main() -> None:
    """Run the `postern` command."""
    from postern.cli.app import app

    _keep_others_out()
    app()


def _keep_others_out() -> None:
    """Ledger, mails, keys and logs are for their owner, unless we were started with a mask that lets a group in.

    That is how gate and intake are two users of one group. What is secret has a mode of its own.
    """
    was = os.umask(_OWNER_ONLY)
    if was & _NO_OTHERS == _NO_OTHERS:
        os.umask(was)
