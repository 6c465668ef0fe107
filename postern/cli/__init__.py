"""The command line, and the composition roots of the roles: the one place that knows all programs."""


def main() -> None:
    """Run the `postern` command."""
    from postern.cli.app import app

    app()
