"""Invented values that take the place of personal data: the same value gets the same one, and none can be valid.

The values are computed from a keyed hash (HMAC-SHA-256) of the seed and the original, so that they depend neither on
the order of the rows nor on the machine. Who has the seed can test a guess of the original: surrogates are pseudonyms.
"""

import hashlib
import hmac
import unicodedata
from collections.abc import Callable, Sequence

from alignment.data.prepare.pii.numbers import SEPARATORS, check_character, luhn

# Invented names; 64 * 26 * 64 different ones.
_FIRST = (
    "Alba Aldo Amal Anouk Arlo Asa Bao Bela Briar Cato Cleo Dara Dilan Ebo Edda Elio Emre Enzo Fenna Fynn Gaia "
    "Hana Hugo Ilya Imani Ines Iris Ivo Jona Juno Kai Kaja Kofi Lale Lena Levi Lior Luca Mael Maya Mila Nadia "
    "Naoki Nele Nico Noor Ola Oren Pia Quinn Rafa Remi Rin Rosa Sami Sena Sol Taio Tara Tove Uma Vera Yara "
    "Zeno"
).split()
_LAST = (
    "Abernal Aldane Arkwell Ashgrove Bellamar Birchall Brandel Calder Carrow Castell Corvane Dalmore Denholt "
    "Dorran Eastby Elmhirst Fairlow Fenwell Galtier Garrow Halloway Harcrest Hollin Ibarro Jarnholm Karsten "
    "Kestrelle Kirwood Lanmere Larkhill Lindqual Lorrimer Mareno Marlock Merrow Mostyne Nakamori Norvale "
    "Oakhurst Okondo Ostrander Pellaton Pembry Quillan Radnor Ravensby Rosmere Sandoval Sarkany Selwick "
    "Strandby Tamsin Tarrow Thornby Umezo Valmond Vandel Verrick Wexholm Whitmere Wintour Yarrow Yelland "
    "Zamorel"
).split()
_PLACE = (
    "Alder Amber Birch Bram Cold Copper East Elder Fal Fern Glen Grey Hazel High Iron King Lark Long Maple Mill"
).split()
_PLACE_END = (
    "bridge bury by dale field ford gate ham haven holm hurst ley minster moor port stead ton vale wick worth"
).split()


def surrogate(kind: str, value: str, *, seed: int, scope: str = "") -> str:
    """Return what takes the place of a value of a type.

    Spellings that differ by case, blanks or hyphens get the same one.

    Args:
        scope: makes the values of one row differ from another row's; "" for the data set.
    """
    same = "".join(unicodedata.normalize("NFKC", value).casefold().split())
    if kind in _SHAPED:
        same = same.translate(SEPARATORS)
    key = f"{seed}\n{scope}".encode()
    digest = hmac.new(key, f"{kind}\n{same}".encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
    invent = _INVENTED.get(kind)
    return invent(value, Numbers(digest)) if invent else f"<{kind}_{Numbers(digest).hexadecimal(8)}>"


class Numbers:
    """The bits of a hash, taken as numbers."""

    def __init__(self, digest: bytes) -> None:
        self._digest = digest
        self._value = int.from_bytes(digest, "big")

    def below(self, limit: int) -> int:
        """Return a number from 0 to less than `limit`."""
        if self._value < limit << 32:  # so few bits are left that the remainder would favour small numbers
            self._digest = hashlib.sha256(self._digest).digest()
            self._value = int.from_bytes(self._digest, "big")
        self._value, found = divmod(self._value, limit)
        return found

    def hexadecimal(self, length: int) -> str:
        """Return hexadecimal digits."""
        return f"{self.below(16**length):0{length}x}"

    def of(self, words: Sequence[str]) -> str:
        """Return one of some words."""
        return words[self.below(len(words))]


def _digits_like(value: str, begin: str, numbers: Numbers) -> str:
    """Return a value with every letter and digit replaced by digits, of which the first are given."""
    places = iter(begin)
    return "".join((next(places, "") or str(numbers.below(10))) if each.isalnum() else each for each in value)


def _card(value: str, numbers: Numbers) -> str:
    """A number in the same form that begins with 00, which no issuer has, and whose check digit is wrong."""
    found = _digits_like(value, "00", numbers)
    wrong = next(str(digit) for digit in range(10) if not luhn(found[:-1].translate(SEPARATORS) + str(digit)))
    return found[:-1] + (found[-1] if not luhn(found.translate(SEPARATORS)) else wrong)


def _chinese_id(_: str, numbers: Numbers) -> str:
    """A number of the region 99, which is not assigned, with a wrong check character."""
    day = f"{1940 + numbers.below(65)}{1 + numbers.below(12):02}{1 + numbers.below(28):02}"
    begin = f"99{numbers.below(10**4):04}{day}{numbers.below(1000):03}"
    return begin + "0123456789"[(int(check_character(begin).replace("X", "0")) + 1 + numbers.below(8)) % 10]


def _ip(value: str, numbers: Numbers) -> str:
    """An address for measurements of devices (RFC 2544, 198.18.0.0/15), or for documentation (RFC 3849)."""
    if ":" in value:
        return "2001:db8:" + ":".join(numbers.hexadecimal(4) for _ in range(6))
    return f"198.{18 + numbers.below(2)}.{numbers.below(256)}.{numbers.below(256)}"


_INVENTED: dict[str, Callable[[str, Numbers], str]] = {
    "PERSON": lambda _, n: f"{n.of(_FIRST)} {chr(ord('A') + n.below(26))}. {n.of(_LAST)}",
    "LOCATION": lambda _, n: f"{n.of(_PLACE)}{n.of(_PLACE_END)}",
    "ORGANIZATION": lambda _, n: f"{n.of(_LAST)} {n.of(_PLACE)} {n.of(('Company', 'Group', 'Institute', 'Works'))}",
    "EMAIL_ADDRESS": lambda _, n: f"user-{n.hexadecimal(8)}@example.com",  # RFC 2606
    "URL": lambda _, n: f"https://example.com/{n.hexadecimal(8)}",
    "IP_ADDRESS": _ip,
    "MAC_ADDRESS": lambda _, n: "02:00:00:" + ":".join(n.hexadecimal(2) for _ in range(3)),  # locally administered
    # 555-0100 to 555-0199 are kept for fiction in North America.
    "PHONE_NUMBER": lambda _, n: f"+1 {200 + n.below(800)}-555-01{n.below(100):02}",
    "CN_MOBILE_NUMBER": lambda _, n: f"120{n.below(10**8):08}",  # mobile numbers begin with 13 to 19
    "CN_RESIDENT_ID": _chinese_id,
    "CREDIT_CARD": _card,
    "IBAN_CODE": lambda value, n: "XX" + _digits_like(value[2:], "00", n),  # no country, and never its check digits
    "US_SSN": lambda value, n: _digits_like(value, "000", n),  # an area that is never issued
}
_SHAPED = frozenset({"CREDIT_CARD", "IBAN_CODE", "US_SSN", "PHONE_NUMBER", "CN_MOBILE_NUMBER", "CN_RESIDENT_ID"})
WITH_SURROGATES = frozenset(_INVENTED)  # of other types a surrogate is the type and a number
