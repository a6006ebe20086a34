"""Numbers with a checksum: payment cards, IBANs, Chinese resident identity numbers."""

import datetime
import re
from collections.abc import Iterator

from presidio_analyzer.predefined_recognizers.generic.iban_patterns import regex_per_country

from alignment.data.prepare.pii.recogniser import VALID, Recogniser

SEPARATORS = str.maketrans("", "", " -")


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    doubled = (2 * int(digit) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(each - 9 if each > 9 else each for each in doubled)) % 10 == 0


class PaymentCards(Recogniser):
    """Card numbers: the issuer's first digits, a length that it uses, and Luhn's checksum.

    presidio's own recogniser misses 12 and 19 digits, Mastercard's 2-series, and JCB's and Maestro's older numbers.
    Ranges: https://en.wikipedia.org/wiki/Payment_card_number#Issuer_identification_number_(IIN).
    """

    KIND = "CREDIT_CARD"
    _ISSUERS: tuple[tuple[str, tuple[int, ...]], ...] = (
        (r"4", (13, 16, 19)),  # Visa
        (r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720", (16,)),  # Mastercard
        (r"3[47]", (15,)),  # American Express
        (r"30[0-5]|3095|36|3[89]", tuple(range(14, 20))),  # Diners Club
        (r"6011|64[4-9]|65", tuple(range(16, 20))),  # Discover
        (r"35", tuple(range(16, 20))),  # JCB
        (r"2131|1800", (15,)),  # JCB, older
        (r"62|81", tuple(range(16, 20))),  # UnionPay
        (r"5018|5020|5038|5893|6304|6759|676[1-3]|6390", tuple(range(12, 20))),  # Maestro
        (r"220[0-4]", tuple(range(16, 20))),  # Mir
        (r"60|508|82", (16,)),  # RuPay
        (r"9792", (16,)),  # Troy
    )
    _CANDIDATE = re.compile(r"(?<![\w.])(?<!\d[ -])\d(?:[ -]?\d){11,18}(?![\w]|[ -]\d|\.\d)", re.ASCII)
    _NUMBERS = tuple((re.compile(prefixes), lengths) for prefixes, lengths in _ISSUERS)

    def found(self, text: str) -> Iterator[tuple[int, int, float]]:
        """Yield every card number."""
        for match in self._CANDIDATE.finditer(text):
            digits = match[0].translate(SEPARATORS)
            issued = any(prefix.match(digits) and len(digits) in lengths for prefix, lengths in self._NUMBERS)
            if issued and luhn(digits):
                yield match.start(), match.end(), VALID


class Ibans(Recogniser):
    """International bank account numbers in upper or lower case: the country's form and the checksum of ISO 13616."""

    KIND = "IBAN_CODE"
    _CANDIDATE = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d\d(?:[ -]?[A-Za-z0-9]){11,30}", re.ASCII)

    def found(self, text: str) -> Iterator[tuple[int, int, float]]:
        """Yield every IBAN; words that follow it are not a part of it."""
        for match in self._CANDIDATE.finditer(text):
            ends = [match.start() + at for at, c in enumerate(match[0], start=1) if c.isalnum()]
            for end in reversed(ends[14:]):
                if text[end : end + 1].isalnum():
                    continue
                if self._valid(text[match.start() : end].translate(SEPARATORS).upper()):
                    yield match.start(), end, VALID
                    break

    @staticmethod
    def _valid(code: str) -> bool:
        form = regex_per_country.get(code[:2])
        if form is None or not re.fullmatch(form, code):
            return False
        return int("".join(str(int(c, 36)) for c in code[4:] + code[:4])) % 97 == 1


class ChineseIds(Recogniser):
    """Resident identity numbers of China: a date of birth and the check character of GB 11643-1999 (ISO 7064 MOD 11-2).

    Numbers of 15 digits, issued until 1999, have no check character; one needs context words.
    """

    KIND = "CN_RESIDENT_ID"
    CONTEXT = ("身份证", "公民身份", "证件号", "id card", "identity", "resident")
    _CANDIDATE = re.compile(r"(?<![\w.])[1-9]\d{5}(\d{8})\d{3}[\dXx](?!\w)", re.ASCII)
    _OLD = re.compile(r"(?<![\w.])[1-8]\d{5}(\d{6})\d{3}(?!\w)", re.ASCII)
    _WEAK = 0.1

    def found(self, text: str) -> Iterator[tuple[int, int, float]]:
        """Yield every number of 18 characters with its checksum, and every number of 15 digits with a date."""
        for match in self._CANDIDATE.finditer(text):
            if _is_date(match[1]) and check_character(match[0][:17]) == match[0][-1].upper():
                yield match.start(), match.end(), VALID
        for match in self._OLD.finditer(text):
            if _is_date("19" + match[1]):
                yield match.start(), match.end(), self._WEAK


def check_character(digits: str) -> str:
    """Return the check character of the first 17 digits of a Chinese resident identity number."""
    total = sum(int(digit) * pow(2, 17 - place, 11) for place, digit in enumerate(digits))
    return "10X98765432"[total % 11]


def _is_date(digits: str) -> bool:
    """Whether YYYYMMDD is a day since 1850."""
    try:
        return datetime.date(int(digits[:4]), int(digits[4:6]), int(digits[6:])).year >= 1850
    except ValueError:
        return False
