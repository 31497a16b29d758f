"""Fetch a published weights file to the place where it is looked for. Knows nothing of what the file holds."""

import hashlib
import http.client
import logging
import re
import shutil
import urllib.request
from pathlib import Path

from filelock import FileLock

from cxr.errors import WeightsError

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 15.0


def fetch(url: str, target: Path, remedy: str) -> Path:
    """Download `url` to `target` unless the file is there; an unfinished download is never seen under that name.

    Two processes that want the same file download it once. A name of the form ``<name>-<8 or more hex digits>.<ext>``
    states the start of the SHA-256 of the file, which is then verified.

    Args:
        url: Where the file is published.
        target: Where it belongs.
        remedy: The end of the error message: what else the user can do.

    Returns:
        `target`.

    Raises:
        WeightsError: The file is absent and cannot be downloaded, or arrives damaged.
    """
    if target.is_file():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f"{target.name}.lock")):
            if not target.is_file():
                _download(url, target)
    except (OSError, http.client.HTTPException) as error:
        raise WeightsError(
            f"expected the weights file {target}, found none, and {url} cannot be downloaded ({error}); "
            f"put the file there by hand, {remedy}"
        ) from error
    return target


def _download(url: str, target: Path) -> None:
    logger.info("downloading %s to %s", url, target)
    part = target.with_name(f"{target.name}.part")
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response, part.open("wb") as stream:
        shutil.copyfileobj(response, stream)
        announced = response.headers.get("Content-Length")
    if announced is not None and part.stat().st_size != int(announced):
        raise OSError(f"the connection ended after {part.stat().st_size} of {announced} bytes")
    _check_stated_hash(part, target.name)
    part.replace(target)


def _check_stated_hash(part: Path, name: str) -> None:
    stated = re.search(r"-([0-9a-f]{8,64})\.", name)
    if stated is None:
        return
    with part.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if not digest.startswith(stated[1]):
        raise OSError(f"its SHA-256 begins {digest[:8]} where its name states {stated[1]}")
