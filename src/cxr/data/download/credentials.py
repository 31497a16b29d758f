"""Kaggle credentials on this machine: every form that Kaggle's own client accepts, in its order.

Reads environment variables and files only: imports nothing of Kaggle's, contacts nothing, and never shows a secret.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cxr.errors import DataError

HOW_TO_LOG_IN = (
    "create a token at https://www.kaggle.com/settings/api ('Generate New Token') and save it in "
    "~/.kaggle/access_token or set KAGGLE_API_TOKEN"
)


@dataclass(frozen=True)
class KaggleLogin:
    """Credentials for Kaggle's API.

    Attributes:
        source: Where they were found, for messages.
        token: Access token (current form), or None.
        username: Owner of `key`, or None.
        key: Legacy API key, or None. With neither token nor key, the source is a `kaggle auth login`.
    """

    source: str
    token: str | None = field(default=None, repr=False)
    username: str | None = field(default=None, repr=False)
    key: str | None = field(default=None, repr=False)


def find_login() -> KaggleLogin | None:
    """The credentials that Kaggle's client would use on this machine, or None.

    Raises:
        DataError: a credentials file exists and cannot be used, or what was found cannot be sent.
    """
    finders = (_token_from_environment, _token_from_file, _key_from_environment, _key_from_file, _oauth_login)
    login = next((login for login in (find() for find in finders) if login is not None), None)
    if login is not None:
        for secret in (login.token, login.username, login.key):
            require_sendable(secret, login.source)
    return login


def require_sendable(secret: str | None, source: str) -> None:
    """DataError, which does not show it, unless `secret` is None or printable ASCII without spaces."""
    if secret is not None and not all("!" <= character <= "~" for character in secret):
        raise DataError(
            f"the credentials from {source} hold a space, a line break or a character that no token has, such as the "
            f"quotation marks of a text editor; copy them again, or {HOW_TO_LOG_IN}"
        )


def _token_from_environment() -> KaggleLogin | None:
    value = os.environ.get("KAGGLE_API_TOKEN", "").strip()
    if not value:
        return None
    token = _read_text(Path(value)) if _is_file(value) else value
    return KaggleLogin("KAGGLE_API_TOKEN", token=token) if token else None


def _token_from_file() -> KaggleLogin | None:
    for name in ("access_token", "access_token.txt"):
        path = Path.home() / ".kaggle" / name
        token = _read_text(path) if path.is_file() else ""
        if token:
            return KaggleLogin(str(path), token=token)
    return None


def _key_from_environment() -> KaggleLogin | None:
    username, key = os.environ.get("KAGGLE_USERNAME"), os.environ.get("KAGGLE_KEY")
    return KaggleLogin("KAGGLE_USERNAME and KAGGLE_KEY", username=username, key=key) if username and key else None


def _key_from_file() -> KaggleLogin | None:
    path = next((folder / "kaggle.json" for folder in _config_folders() if (folder / "kaggle.json").is_file()), None)
    if path is None:
        return None
    values = _read_json(path)
    if not (isinstance(values, dict) and values.get("username") and values.get("key")):
        raise DataError(
            f"{path} is no Kaggle API key: expected a JSON object with username and key; delete it and {HOW_TO_LOG_IN}"
        )
    return KaggleLogin(str(path), username=str(values["username"]), key=str(values["key"]))


def _oauth_login() -> KaggleLogin | None:
    path = Path.home() / ".kaggle" / "credentials.json"
    values = _read_json(path) if path.is_file() else None
    return KaggleLogin(str(path)) if isinstance(values, dict) and values.get("refresh_token") else None


def _config_folders() -> list[Path]:
    if os.environ.get("KAGGLE_CONFIG_DIR"):
        return [Path(os.environ["KAGGLE_CONFIG_DIR"])]
    return [Path.home() / ".kaggle", Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config")) / "kaggle"]


def _is_file(value: str) -> bool:
    try:
        return Path(value).is_file()
    except OSError:  # a token longer than a file name may be
        return False


def _read_text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); make it a readable text file, or {HOW_TO_LOG_IN}") from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(_read_text(path))
    except json.JSONDecodeError:
        return None
