"""What keeps the processes of one gate apart: each has a name and a folder of its own for unfinished uploads."""

from pathlib import Path

from typing_extensions import override

from storage.spool import Spool, remove_leftovers


def member_name(number: int) -> str:
    """How the process of that number, from 1 on, announces itself."""
    return f"gate-{number}"


class MemberSpool(Spool):
    """The spool as one process of several uses it: `incoming/<its name>/<upload id>/` is being received.

    What it accepts goes where every gate's uploads go.
    """

    def __init__(self, root: Path, number: int) -> None:
        super().__init__(root)
        self.incoming = self.incoming / member_name(number)

    @override
    def sweep(self) -> int:
        """Remove what a process of that number left when it died: what is in its own folder, and nothing else."""
        return remove_leftovers(self.incoming.iterdir())
