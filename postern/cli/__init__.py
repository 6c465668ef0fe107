"""The command line, and the composition roots of the roles: the one place that knows all programs."""

import os


def main() -> None:
    """Run the `postern` command."""
    from postern.cli.app import app

    os.umask(0o077)  # ledger, mails, keys and logs are for their owner
    app()
