"""Sending an exported folder to the Hub. It happens only where the user names a repository."""

from pathlib import Path

from alignment.errors import AlignmentError, RecipeError, first_line
from alignment.hub import HUB_ID, LONGEST_ID, endpoint, is_offline
from alignment.strict_json import shown


def require_repository(name: str) -> None:
    """Refuse a name that the Hub cannot have, and a push where the environment forbids connections.

    Raises: RecipeError.
    """
    if not HUB_ID.fullmatch(name) or "/" not in name or len(name) > LONGEST_ID or "--" in name or ".." in name:
        raise RecipeError([f"--push {shown(name)}: write OWNER/NAME, as the Hub names repositories"])
    if is_offline():
        raise RecipeError([f"--push {name}: HF_HUB_OFFLINE forbids connections to the Hub; unset it"])


def push(folder: Path, name: str, *, public: bool) -> str:
    """Upload a folder's files as one commit; a repository that does not exist is made.

    Returns: the address of the repository.
    Raises: AlignmentError if the Hub refuses, or cannot be reached; the folder stays.
    """
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(endpoint=endpoint())
    try:
        made = api.create_repo(name, private=not public, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Export of Alignment Stack")
    except (HfHubHTTPError, httpx2.HTTPError, OSError, ValueError) as error:
        raise AlignmentError(
            f"{folder} is written, and was not pushed to {name}: {first_line(error)} Log in with `hf auth login`, or "
            f"push it later: hf upload {name} {folder}"
        ) from error
    return str(made)
