"""Detection and removal of API keys in texts, by the form of the key or by the name of its field."""

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

HIDDEN = "[hidden]"
_START, _WORD = r"(?<![A-Za-z0-9])", r"[A-Za-z0-9_-]"
# Known keys by their prefix; https://docs.github.com/en/code-security/secret-scanning lists more.
SHAPES = tuple(
    (kind, re.compile(_START + pattern))
    for kind, pattern in (
        ("an Anthropic key", rf"sk-ant-{_WORD}{{4,}}"),
        ("an OpenAI key", rf"(?:sk|csk|sess)-(?:proj|svcacct|admin|or|test|live)-{_WORD}{{4,}}"),
        ("a Stripe key", r"[sr]k_(?:live|test)_[A-Za-z0-9]{8,}"),
        ("a Hugging Face token", r"(?:hf|api_org)_[A-Za-z0-9]{16,}"),
        ("a GitHub token", r"(?:gh[pousr]_[A-Za-z0-9]{12,}|github_pat_[A-Za-z0-9_]{12,})"),
        ("a GitLab token", rf"gl(?:pat|dt|rt|ptt|ft|imt|agent|soat|cbt)-{_WORD}{{12,}}"),
        ("an AWS key", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{12,}"),
        ("a Google key", rf"(?:AIza{_WORD}{{20,}}|ya29\.{_WORD}{{16,}}|GOCSPX-{_WORD}{{16,}})"),
        ("a Slack token", r"(?:xox[a-z]-[A-Za-z0-9-]{8,}|xapp-[A-Za-z0-9-]{12,})"),
        ("a JSON web token", rf"eyJ{_WORD}{{8,1000}}\.{_WORD}{{8,}}(?:\.{_WORD}*)?"),
        ("a bearer token", r"(?i:bearer|basic)\s+(?=[A-Za-z._~+/-]{0,200}[0-9=])[A-Za-z0-9._~+/=-]{12,}"),
        (
            "a provider's key",
            r"(?:gsk_|r8_|fw_|tgp_v1_|rpa_|jina_|pcsk_|wandb_v1_|npm_|dckr_pat_)[A-Za-z0-9_]{16,}",
        ),
        (  # a part of 16 letters and digits, unlike in names such as `pa-instructions-2024-large`
            "a provider's key",
            rf"(?:nvapi|pplx|xai|pypi|voyage|pa|ak|as)-(?:{_WORD}{{0,40}}[_-])??(?=[A-Za-z]{{0,200}}[0-9])[A-Za-z0-9]{{16,}}{_WORD}*",
        ),
        ("a LangSmith key", r"lsv2_[a-z]{2}_[A-Za-z0-9]{16,}\w*"),
        ("a bot's token", rf"[0-9]{{8,10}}:AA{_WORD}{{30,}}"),
        ("a private key", r"AGE-SECRET-KEY-1[A-Z0-9]{20,}"),
        ("a provider's key", rf"SG\.{_WORD}{{16,200}}\.{_WORD}{{16,}}"),
        ("a Databricks token", r"dapi[0-9a-f]{32}"),
        ("a private key", r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    )
)
OPENAI = re.compile(rf"{_START}(?:sk|csk|sess)-{_WORD}{{6,}}")  # and other endpoints'; `sk` may also mean Slovak
ORDINARY = re.compile(r"[a-z]{1,12}|[a-z0-9.]{1,4}")  # a part of a name: instructions, v2, 7b
ASSIGNED = re.compile(
    r"(?i)((?:api|access|secret|private|auth)[_-]?key|(?:access|auth|bearer|hub|hf|session)[_-]?token|secret|passw(?:or)?d)"
    r"(\s{0,20}[=:]\s{0,20}|\s{1,20})(['\"]?)(?=[^\s'\"]{0,200}[0-9])([^\s'\"$<>{}]{8,})"
)
USER = re.compile(
    r"(?i)[a-z][a-z0-9+.-]{0,20}://(?:[^\s/?#@]{0,1000}@|[^\s/@]{0,1000}:(?!\d{1,9}(?:[/?#]|$))[^\s@]{0,1000}@)"
)
NAMES = re.compile(  # names of fields that hold a key of any form
    r"(^|_)((api|access|secret|private|auth|account|subscription|signing|encryption|shared)_?key|secrets?|passwords?"
    r"|passwd|passphrase|pwd|authorization|credentials?|bearer|cookie"
    r"|(access|auth|api|hub|hf|refresh|session|bearer|bot|secret|private|security|push_to_hub|use_auth)_?token)$"
)
MAYBE = re.compile(
    r"(^|_)(key|token|auth|sig|signature|sas)$"
)  # holds a key if the value looks random; eos_token does not
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
GENERATED_LENGTH, GENERATED_DIGITS = 24, 3  # minimum characters, and digits among them, of a key of unknown form
RANDOM_LENGTH, RANDOM_BITS = 20, 3.0  # characters, and bits of each: a hexadecimal digit has at most 4


def key_in(text: str) -> str | None:
    """Return the kind of key that a text contains, by its form; None if there is none."""
    for kind, pattern in SHAPES:
        if pattern.search(text):
            return kind
    if any(_is_openai(found, text) for found in OPENAI.finditer(text)):
        return "an OpenAI key"
    return None


def _is_openai(found: "re.Match[str]", text: str) -> bool:
    """Whether `sk-…` is a key, not the name of a data set in Slovak such as `data/sk-alpaca-cleaned-v2`."""
    parts = re.split(r"[_-]", found[0])[1:]
    return found[0] == text or not all(ORDINARY.fullmatch(part) for part in parts if part)


def holds_user(url: str) -> bool:
    """Whether an address holds a user name or a password."""
    return bool(USER.search(url))


def key_in_query(url: str) -> str | None:
    """Return the parameter of an address that holds a key; None if there is none."""
    if "://" not in url or ("?" not in url and "#" not in url):
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    for name, value in parse_qsl(f"{parts.query}&{parts.fragment}", keep_blank_values=True):
        if value and (names_a_key(name) or key_in(value) or is_random(value)):
            return name if not key_in(name) and not is_random(name) else "a parameter"
        if value and MAYBE.search(_plain(name)) and len(value) >= 8:
            return name
    return None


def names_a_key(name: str) -> bool:
    """Whether every value under a name is a key: `password`, `X-Api-Key`, `hub_token`."""
    return bool(NAMES.search(_plain(name)))


def may_name_a_key(name: str) -> bool:
    """Whether a random-looking value under a name is a key: `token`, `key`."""
    return bool(MAYBE.search(_plain(name)))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()).strip("_")


def is_variable(text: str) -> bool:
    """Whether a text is the name of an environment variable and does not look like a key."""
    return bool(VARIABLE.fullmatch(text)) and key_in(text) is None and not is_random(text)


def is_random(text: str) -> bool:
    """Whether a text is long, consists of letters and digits, and has no pattern, like a generated key."""
    plain = re.fullmatch(r"[A-Za-z0-9_+/=.~-]+", text)
    if plain is None or len(text) < RANDOM_LENGTH or not re.search(r"[0-9]", text) or not re.search(r"[A-Za-z]", text):
        return False
    if all(re.fullmatch(r"[A-Za-z]*|[0-9]{1,4}|[A-Za-z0-9]{1,4}", part) for part in re.split(r"[_./-]", text)):
        return False  # words and small numbers: MY_JUDGE_KEY_2
    counts = Counter(text).values()
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts) >= RANDOM_BITS


def is_generated(text: str) -> bool:
    """Whether a text has a part that mixes uppercase, lowercase and digits as names do not: `a1B2c3D4e5…`."""
    return any(
        is_random(part)
        and len(re.findall(r"[0-9]", part)) >= GENERATED_DIGITS
        and re.search(r"[a-z]", part) is not None
        and re.search(r"[A-Z]", part) is not None
        and len(re.findall(r"(?<=[a-z])(?![a-z])|(?<=[A-Z])(?![A-Z])|(?<=[0-9])(?![0-9])", part)) >= len(part) / 2
        for part in re.findall(rf"[A-Za-z0-9]{{{GENERATED_LENGTH},}}", text)
    )


def environment_keys() -> Iterator[tuple[str, str]]:
    """Return the keys in this process's environment: name and value of each variable."""
    for name, value in os.environ.items():
        value = value.strip()
        named, might = names_a_key(name), may_name_a_key(name)
        if (named or might) and (
            key_in(value) or is_random(value) or (named and len(value) >= 16 and "/" not in value)
        ):
            yield name, value


def hidden(text: str) -> str:
    """Return a text without keys: by their form, in addresses, and of environment variables."""
    for _, value in environment_keys():
        text = text.replace(value, HIDDEN)
    for _, pattern in SHAPES:
        text = pattern.sub(HIDDEN, text)
    text = OPENAI.sub(lambda found: HIDDEN if _is_openai(found, text) else found[0], text)
    text = USER.sub(lambda found: f"{found[0].partition('://')[0]}://{HIDDEN}@", text)
    text = ASSIGNED.sub(lambda found: f"{found[1]}{found[2]}{found[3]}{HIDDEN}", text)
    return re.sub(r"[a-z]{1,20}://[^\s'\"]+", lambda url: _without_query(url[0]), text)


def _without_query(url: str) -> str:
    return re.split(r"[?#]", url)[0] + f"?{HIDDEN}" if key_in_query(url) else url


def hidden_words(words: Iterable[str]) -> list[str]:
    """Return a command line without keys, including values of options such as `--api_key`."""
    shown: list[str] = []
    of_flag = ""
    for word in words:
        flag, equals, value = word.partition("=")
        if of_flag and not word.startswith("--"):
            shown.append(HIDDEN if _is_key(of_flag, word) else hidden(word))
        else:
            shown.append(f"{flag}={HIDDEN}" if equals and _is_key(flag, value) else hidden(word))
        of_flag = flag if flag.startswith("--") and not equals else ""
    return shown


def _is_key(flag: str, value: str) -> bool:
    """Whether the value of an option is a key."""
    name = flag.rpartition(".")[2]
    return not is_variable(value) if name.endswith("_env") else names_a_key(name)


def without_keys(value: Any, name: str = "") -> Any:
    """Return a mapping, list or value with API keys hidden, by their names and by their forms."""
    if isinstance(value, dict):
        return {hidden(str(key)): without_keys(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_keys(inner, name) for inner in value]
    if isinstance(value, str):
        return HIDDEN if value and names_a_key(name) else hidden(value)
    return value
