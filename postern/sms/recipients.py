"""Which phone numbers are possible: an assigned calling code and a length that its numbers can have.

Possible, not "valid": libphonenumber's validity refuses numbers in use and every simulator number. The length
tables are libphonenumber's (`phonenumberslite`). A number depends on its first three digits and its length only,
so a whole column is judged by its few distinct pairs of those.
"""

from functools import cache

from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, PhoneMetadata

LOCAL_CODE = "65"
LOCAL_LENGTH = 10  # digits, calling code included
BARE_LENGTH = 8  # digits of a local number that lacks its calling code
BARE_NUMBER = rf"[3689][0-9]{{{BARE_LENGTH - 1}}}"  # a pattern: what such a number looks like
MOBILE_STARTS = ("8", "9")
FAKE_NUMBERS = frozenset({"6590000000", "6599999999", "6588888888"})
_LONGEST_CODE = 3
_NON_GEOGRAPHIC = "001"


def is_possible(prefix: str, length: int) -> bool:
    """Whether a number with these first three digits and this many digits in all can exist.

    Args:
        prefix: the first three digits (fewer where the number is shorter).
        length: digits in all, calling code included.
    """
    if prefix.startswith(LOCAL_CODE):
        return length == LOCAL_LENGTH
    if length == BARE_LENGTH and prefix.startswith(MOBILE_STARTS):
        return False  # a local number without its calling code, whatever country the digits could mean
    code = _calling_code(prefix)
    return code is not None and length - len(code) in _national_lengths(int(code))


def _calling_code(prefix: str) -> str | None:
    # Calling codes are prefix-free (ITU-T E.164), so the first one that fits is the one.
    for length in range(1, _LONGEST_CODE + 1):
        code = prefix[:length]
        if len(code) == length and code[0] != "0" and int(code) in COUNTRY_CODE_TO_REGION_CODE:
            return code
    return None


@cache
def _national_lengths(code: int) -> frozenset[int]:
    region = COUNTRY_CODE_TO_REGION_CODE[code][0]
    if region == _NON_GEOGRAPHIC:
        metadata = PhoneMetadata.metadata_for_nongeo_region(code)
    else:
        metadata = PhoneMetadata.metadata_for_region(region)
    description = metadata.general_desc if metadata else None
    return frozenset(description.possible_length) if description else frozenset()
