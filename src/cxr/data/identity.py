"""Salted hashes in place of patient, study and sample ids. Knows nothing of tables, runs or trackers.

The salt must never lie in a run folder: whoever has both the salt and a list of candidate ids can undo the hashes.
"""

import hmac
import os
import secrets
from pathlib import Path

import pandas as pd
from filelock import FileLock

from cxr.errors import ConfigError

SALT_VARIABLE = "CXR_ID_SALT"
_SALT_FILE = "id_salt"
_HEX_DIGITS = 16  # 64 bits: among 400,000 ids two collide with a chance of 4e-9


def hash_id(identifier: str, salt: str) -> str:
    """Return 16 hex digits of HMAC-SHA256(salt, identifier)."""
    return hmac.digest(salt.encode(), identifier.encode(), "sha256").hex()[:_HEX_DIGITS]


def hash_ids(ids: pd.Series, salt: str) -> pd.Series:
    """Hash every id of a column; equal ids give equal hashes and missing ids stay missing.

    Args:
        ids: Column of strings.
        salt: The secret of this installation, see `load_salt`.

    Returns:
        A column of 16 hex digits with the same index and name.
    """
    hashes = {identifier: hash_id(str(identifier), salt) for identifier in ids.dropna().unique()}
    return ids.map(hashes)


def load_salt(folder: Path) -> str:
    """Return the secret with which this installation hashes ids, made on first use.

    The environment variable CXR_ID_SALT goes first, so that several machines can share one salt.

    Args:
        folder: A private folder outside every run, for example the cache folder. The salt is kept there, readable by
            its owner alone; two processes that ask at once get the same one.

    Raises:
        ConfigError: CXR_ID_SALT is set but empty, or the salt file is empty or cannot be read or written.
    """
    salt = os.environ.get(SALT_VARIABLE)
    if salt is not None:
        return _not_empty(salt, f"the environment variable {SALT_VARIABLE}", "set it to a long random text or unset it")
    path = folder / _SALT_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not path.exists():
                _make_salt(path)
        return _not_empty(path.read_text().strip(), f"the file {path}", "delete it to have a new salt made")
    except OSError as error:
        raise ConfigError(
            f"expected to keep the salt of the id hashes in {path}, but got: {error}; "
            f"make that folder writable or set the environment variable {SALT_VARIABLE}"
        ) from error


def _not_empty(salt: str, place: str, remedy: str) -> str:
    if not salt:
        raise ConfigError(f"expected {place} to hold the salt of the id hashes, but it is empty; {remedy}")
    return salt


def _make_salt(path: Path) -> None:
    """Write a new salt readable by its owner alone; a killed process leaves no half-written one."""
    draft = path.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
    draft.replace(path)
