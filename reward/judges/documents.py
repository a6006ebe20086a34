"""YAML files that a judge's entry names."""

from pathlib import Path
from typing import Any

import yaml

from alignment.errors import JudgeError


def read_yaml(path: str, key: str) -> tuple[bytes, Any]:
    """Read a file; its bytes and what they say.

    Args:
        key: of the recipe, for messages.

    Raises: JudgeError where it cannot be read or is no YAML.
    """
    try:
        data = Path(path).read_bytes()
        return data, yaml.safe_load(data.decode("utf-8"))
    except OSError as error:
        raise JudgeError(f"{key} {path}: {error.strerror}; name a YAML file.") from error
    except UnicodeDecodeError as error:
        raise JudgeError(f"{key} {path}: not UTF-8 text ({error.reason}).") from error
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise JudgeError(f"{key} {path}: not YAML ({problem}).") from error
