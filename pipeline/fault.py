"""What is wrong with a file as a whole."""

from postern.model import Finding

HOW_TO_SAVE = 'In Excel, save the file as "CSV UTF-8 (Comma delimited)".'


class Fault(Exception):  # noqa: N818 - never leaves this package: `pipeline.validate` turns it into the verdict
    """The file cannot be read as a whole; carries the one finding that says why, and whether it has rows to show."""

    def __init__(self, code: str, sentence: str, *, row: int | None = None, has_rows: bool = True) -> None:
        super().__init__(sentence)
        self.finding = Finding(code=code, sentence=sentence, row=row)
        self.has_rows = has_rows
