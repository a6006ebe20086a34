"""Telephone numbers of every country, and mobile numbers of China."""

import re
from collections.abc import Iterator

import phonenumbers

from alignment.data.prepare.pii.recogniser import LIKELY, WEAK, Recogniser

_WORDS = (
    *("phone", "telephone", "tel", "cell", "mobile", "fax", "desk", "landline", "call", "dial", "whatsapp", "sms"),
    *("message", "contact", "reach", "answering", "telefon", "téléphone", "teléfono", "telefone"),
    *("电话", "電話", "手机", "手機", "传真", "전화", "携帯"),
)
_ALONE = 0.1  # digits without separators: context words raise it to presidio's 0.45
_FORMED = 0.45  # digits in groups, valid in some country
_EXTENSION = r"(?:\s?(?:x|ext\.?|extension)\s?\d{1,6})?"
_DIGITS = re.compile(r"\d+", re.ASCII)
_YEAR = r"(?:1[0-9]|20)\d\d"
_DAYS = re.compile(rf"{_YEAR}\W{{1,3}}{_YEAR}|{_YEAR}([./-])\d\d?\1\d\d?|\d\d?([./-])\d\d?\2{_YEAR}", re.ASCII)
_POSTAL = re.compile(r"\d{5}-\d{3,4}|\d{4}-\d{3}", re.ASCII)  # of Brazil, the United States, Portugal
_THOUSANDS = re.compile(r"\d{1,3}(?:\.\d{3})+", re.ASCII)


class Telephones(Recogniser):
    """Telephone numbers: international, or national ones that Google's libphonenumber holds valid in a country.

    presidio's recogniser reads eight countries' numbers only and gives all of them one score.
    """

    KIND = "PHONE_NUMBER"
    CONTEXT = _WORDS
    _CANDIDATE = re.compile(
        r"(?<![\w+#$€£])(?<!\d[.,:/-])(?:\+|\b00[- ]?|\b011[- ])?(?:\(\+?\d{1,4}\)|\d{1,14})"
        r"(?:(?:[ ./-]|\) ?| ?\(|(?<=\)))(?:\(?\d{1,14}\)?)){0,6}" + _EXTENSION + r"(?![\w%]|[.,:/-]\d)",
        re.ASCII | re.IGNORECASE,
    )

    def __init__(self, regions: list[str] | None = None) -> None:
        """`regions`: countries (ISO 3166-1, two letters) whose national numbers are found; None: all."""
        self.regions = sorted(regions or phonenumbers.SUPPORTED_REGIONS)
        super().__init__()

    def found(self, text: str) -> Iterator[tuple[int, int, float]]:
        """Yield every number of 7 to 15 digits; digits alone have a low score."""
        for match in self._CANDIDATE.finditer(text):
            number = match[0] if match[0].count("(") == match[0].count(")") else match[0].rstrip(")")
            score = self._score(number)
            if score:
                yield match.start(), match.start() + len(number), score

    def _score(self, written: str) -> float:
        number = re.split(r"\s?(?:x|ext)", written, maxsplit=1, flags=re.IGNORECASE)[0]
        groups = _DIGITS.findall(number)
        digits = "".join(groups)
        if not 7 <= len(digits) <= 15 or _DAYS.fullmatch(number):
            return 0.0
        if number.startswith("+") or (number.startswith(("00", "011")) and len(groups) > 1):
            return LIKELY if self._possible(number) else 0.0
        if not any(self._valid(number, region) for region in self.regions):
            return 0.0
        if len(groups) == 1:
            return _ALONE
        return _FORMED if self._formed(number, groups) else WEAK

    @staticmethod
    def _possible(number: str) -> bool:
        """Whether an international number has a country code and a length of that country."""
        try:
            parsed = phonenumbers.parse(re.sub(r"^(?:00[- ]?|011[- ])", "+", number), None)
        except phonenumbers.NumberParseException:
            return False
        return phonenumbers.is_possible_number(parsed)

    @staticmethod
    def _valid(number: str, region: str) -> bool:
        try:
            return phonenumbers.is_valid_number(phonenumbers.parse(number, region))
        except phonenumbers.NumberParseException:
            return False

    @staticmethod
    def _formed(number: str, groups: list[str]) -> bool:
        """Whether groups of digits look like a telephone number's and not like a range, a sum or a postal code."""
        if _POSTAL.fullmatch(number) or _THOUSANDS.fullmatch(number):
            return False
        lengths = [len(group) for group in groups]
        if max(lengths) > 5 and not number.startswith(("0", "(")):  # a difference of two numbers
            return False
        if 1 in lengths[1:] or (lengths[0] == 1 and groups[0] not in "178"):  # the trunk prefixes of America and Russia
            return "(0)" in number
        if len(groups) == 2 and " " in number and "(" not in number:  # also a house's number behind a postal code
            return number.startswith("0")
        if max(lengths) <= 2:
            return groups[0].startswith("0") or (len(groups) >= 4 and "-" in number)
        return True


class ChineseMobiles(Recogniser):
    """Mobile numbers of China: 11 digits in a range of a network, perhaps after +86. They have no check digit."""

    KIND = "CN_MOBILE_NUMBER"
    CONTEXT = _WORDS
    _CANDIDATE = re.compile(
        r"(?<![\w+])(?<!\d[.,:/-])(?:(?:\+|00)?86[ -]?)?(1[3-9]\d(?:[ -]?\d{4}){2})(?![\w]|[.-]\d)", re.ASCII
    )

    def found(self, text: str) -> Iterator[tuple[int, int, float]]:
        """Yield every number that libphonenumber holds to be a mobile number of China."""
        for match in self._CANDIDATE.finditer(text):
            parsed = phonenumbers.parse(match[1], "CN")
            kind = phonenumbers.number_type(parsed)
            if kind == phonenumbers.PhoneNumberType.MOBILE:
                yield match.start(), match.end(), LIKELY + 0.1
