"""Email addresses and URLs. The list of public suffixes is the one in tldextract's package."""

import re
from collections.abc import Iterator

import tldextract

from alignment.data.prepare.pii.recogniser import LIKELY, VALID, WEAK, Recogniser

_suffixes = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)  # by default it loads a list over the network
_LABEL = r"[a-z0-9\u00a1-\uffff](?:[a-z0-9\u00a1-\uffff-]*[a-z0-9\u00a1-\uffff])?"
_COMMON = frozenset({"com", "org", "net", "edu", "gov", "io", "info", "biz"})


class Emails(Recogniser):
    """Email addresses; one under a public suffix has the highest score."""

    KIND = "EMAIL_ADDRESS"
    CONTEXT = ("email", "e-mail", "mail", "邮箱", "邮件")
    _CANDIDATE = re.compile(
        rf"(?<![\w.+%-])[\w!#$%&'*+/=?^`{{|}}~-]+(?:\.[\w!#$%&'*+/=?^`{{|}}~-]+)*@(?:{_LABEL}\.)+[a-z\u00a1-\uffff][a-z0-9\u00a1-\uffff-]+(?!\w)",
        re.IGNORECASE,
    )

    def found(self, text: str) -> Iterator[tuple[int, int, float]]:
        """Yield every address."""
        for match in self._CANDIDATE.finditer(text):
            start = match.start() + len(match[0]) - len(match[0].lstrip("'`*/=?{|}&~"))
            yield start, match.end(), VALID if _suffixes(match[0].rpartition("@")[2]).suffix else LIKELY


class Urls(Recogniser):
    """URLs with a scheme or `www.`, and names under a public suffix that are common or have a path."""

    KIND = "URL"
    CONTEXT = ("url", "website", "site", "link", "网址")
    _FULL = re.compile(r"(?<![\w])(?:(?:https?|ftps?|wss?)://|www\.)[^\s<>\"`\x00]+", re.IGNORECASE)
    _BARE = re.compile(rf"(?<![\w@./:-])(?:{_LABEL}\.)+[a-z]{{2,24}}(?::\d+)?(/[^\s<>\"`\x00]*)?(?![\w@])")

    def found(self, text: str) -> Iterator[tuple[int, int, float]]:
        """Yield every URL without the marks of punctuation that follow it."""
        for match in self._FULL.finditer(text):
            end = match.start() + len(_without_marks(match[0]))
            if any(c.isalnum() for c in match[0].partition("//")[2] or match[0][4:]):
                yield match.start(), end, LIKELY
        for match in self._BARE.finditer(text):
            name = match[0].partition("/")[0].partition(":")[0]
            suffix = _suffixes(name).suffix
            if suffix and suffix != name:
                known = match[1] or suffix in _COMMON
                yield match.start(), match.start() + len(_without_marks(match[0])), 0.5 if known else WEAK


def _without_marks(url: str) -> str:
    """Return a URL without punctuation at its end; a closing bracket stays where the URL opens it."""
    while url and (url[-1] in ".,;:!?'*_…" or (url[-1] in ")]}" and url.count(url[-1]) > url.count(_OPENING[url[-1]]))):
        url = url[:-1]
    return url


_OPENING = {")": "(", "]": "[", "}": "{"}
