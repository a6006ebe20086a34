"""Days in digits or with an English name of the month, with or without a time of day."""

import re
from collections.abc import Iterator

from alignment.data.prepare.pii.recogniser import LIKELY, Recogniser
from alignment.data.prepare.pii.texts import DAY_MARK, MONTH_MARK, YEAR_MARK

_CLOCK = r"(?:[01]?\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:[.,]\d{1,9})?)?(?: ?[AaPp]\.?[Mm]\.?)?"
_TIME = rf"(?:(?:[T ]|, ?| at ){_CLOCK}(?: ?(?:Z|UTC|GMT|[+-]\d\d:?\d\d))?)?"
_YEAR, _MONTH, _DAY = r"(?:1[5-9]|20|21)\d\d", r"(?:0?[1-9]|1[0-2])", r"(?:0?[1-9]|[12]\d|3[01])"
_SHORT_YEAR = rf"(?:{_YEAR}|\d\d)"
_NAME = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?"
    r"|Nov(?:ember)?|Dec(?:ember)?)\.?"
)
_NTH = rf"{_DAY}(?:st|nd|rd|th)?"


class Dates(Recogniser):
    """Days: 2016-04-12 with or without a time, 4/12/2016, 12.4.2016, 2016年4月12日, 12 April 2016, April 12, 2016.

    presidio's recogniser finds no time of day after a blank and no month's full name. Years and days of the week alone
    have no pattern that tells them from other numbers and words.
    """

    KIND = "DATE_TIME"
    CONTEXT = ("date", "birthday", "born", "出生", "日期")
    _FORMS = (
        rf"{_YEAR}([-/.]){_MONTH}\1{_DAY}",
        rf"{_MONTH}([-/]){_DAY}\2{_SHORT_YEAR}",
        rf"{_DAY}([-/.]){_MONTH}\3{_SHORT_YEAR}",
        rf"{_NTH} (?:of )?{_NAME}(?:,? {_YEAR})",
        rf"{_NAME} {_NTH},? {_YEAR}",
        rf"{_DAY}-(?:{_NAME})-{_SHORT_YEAR}",
        rf"{_YEAR} ?{YEAR_MARK} ?{_MONTH} ?{MONTH_MARK} ?{_DAY} ?{DAY_MARK}",
    )
    _DATE = re.compile(rf"(?<![\w.,/-])(?:{'|'.join(_FORMS)}){_TIME}(?![\w]|[/-]\d|\.\d)", re.ASCII | re.IGNORECASE)

    def found(self, text: str) -> Iterator[tuple[int, int, float]]:
        """Yield every day."""
        for match in self._DATE.finditer(text):
            yield match.start(), match.end(), LIKELY
