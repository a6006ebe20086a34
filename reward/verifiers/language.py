"""The language of a text, by langdetect with a fixed seed.

langdetect draws random numbers. A factory of our own with a seed gives one text the same language in every process and
leaves the package's global factory as it is.
"""

import threading
from functools import cache
from pathlib import Path
from typing import Any

from reward.verifiers.extras import require

_SEED = 0
_LOADING = threading.Lock()


def languages() -> frozenset[str]:
    """Return the codes that langdetect can return: ISO 639-1, and zh-cn and zh-tw for Chinese.

    Raises: ScorerError if langdetect is not installed.
    """
    profiles = Path(require("langdetect.detector_factory", "ifeval").PROFILES_DIRECTORY)
    return frozenset(file.name for file in profiles.iterdir() if not file.name.startswith((".", "_")))


def language_of(text: str) -> str | None:
    """Return the code of a text's language; None if the text has no letters to detect it by.

    Raises: ScorerError if langdetect is not installed.
    """
    detector = _factory().create()
    detector.append(text)
    try:
        return str(detector.detect())
    except require("langdetect", "ifeval").LangDetectException:
        return None


def _factory() -> Any:
    with _LOADING:
        return _loaded()


@cache
def _loaded() -> Any:
    module = require("langdetect.detector_factory", "ifeval")
    factory = module.DetectorFactory()
    factory.load_profile(module.PROFILES_DIRECTORY)
    factory.set_seed(_SEED)
    return factory
