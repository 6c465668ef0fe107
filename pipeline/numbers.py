"""Recipients in columns: those of the service's own country as numbers, others by their few distinct shapes."""

import numpy as np
import polars as pl

from pipeline.chunks import ROW
from pipeline.findings import Findings
from pipeline.measure import RECIPIENT
from postern.model import Environment
from postern.sms.recipients import FAKE_NUMBERS, LOCAL_CODE, LOCAL_LENGTH, MOBILE_STARTS, is_possible

_LONGEST = 15  # digits (ITU-T E.164)
_NATIONAL = LOCAL_LENGTH - len(LOCAL_CODE)  # digits
_IS_DIGITS, _SHAPE = "__is_digits", "__shape"  # no parameter can be called so


def judge_recipients(errors: Findings, warnings: Findings, frame: pl.DataFrame, environment: Environment) -> None:
    """Add what is wrong with the recipients of a frame, and what is odd about them."""
    rows, recipients = frame[ROW], frame[RECIPIENT]
    recipient = pl.col(RECIPIENT)
    told = frame.select_seq(number=recipient.cast(pl.UInt64, strict=False).fill_null(0), size=recipient.str.len_bytes())
    number, size = told["number"].to_numpy(), told["size"].to_numpy()
    # What starts with the code as a number, and has as many characters, is nothing but digits.
    is_local = (number // 10**_NATIONAL == int(LOCAL_CODE)) & (size == LOCAL_LENGTH)
    is_mobile = np.isin(number // 10 ** (_NATIONAL - 1) % 10, [int(start) for start in MOBILE_STARTS])
    warnings.add(RECIPIENT, "local_number_unusual", rows, is_local & ~is_mobile, recipients)
    if environment is Environment.PRODUCTION:
        is_fake = is_local & np.isin(number, [int(fake) for fake in FAKE_NUMBERS])
        warnings.add(RECIPIENT, "fake_number", rows, is_fake, recipients)
    if not is_local.all():
        errors.add(RECIPIENT, "recipient_missing", rows, size == 0, None)
        _judge_others(errors, frame.select_seq(ROW, RECIPIENT)[np.flatnonzero(~is_local & (size > 0))])


def _judge_others(errors: Findings, others: pl.DataFrame) -> None:
    value = pl.col(RECIPIENT).str
    shape = pl.concat_str(value.slice(0, 3), value.len_bytes(), separator=" ")
    others = others.with_columns_seq(value.contains(r"\A[0-9]+\z").alias(_IS_DIGITS), shape.alias(_SHAPE))
    shapes = others.filter(_IS_DIGITS)[_SHAPE].unique()
    possible = others[_IS_DIGITS] & others[_SHAPE].is_in([shape for shape in shapes if _is_possible(shape)])
    errors.add(RECIPIENT, "recipient_invalid", others[ROW], (~possible).to_numpy(), others[RECIPIENT])


def _is_possible(shape: str) -> bool:
    prefix, length = shape.split(" ")
    return int(length) <= _LONGEST and is_possible(prefix, int(length))
