"""The keys of the server: made, stored as hashes, recognised, and replaced one at a time.

A key that is made here has 256 random bits. Nobody can try these out, so one round of SHA-256 hides them as well as a
slow hash would, which protects passwords that people choose. A key that somebody sets is refused unless it is long.
Knows nothing of HTTP.
"""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cxr.errors import ConfigError

VARIABLE = "CXR_API_KEYS"
FORMAT = 1
MOST_KEYS = 2
FEWEST_CHARACTERS, FEWEST_DIFFERENT = 32, 8


@dataclass(frozen=True)
class Key:
    """What is known of a key: enough to recognise it, too little to use it.

    Attributes:
        key_id: Names it in sessions and rate limits; says nothing of the key.
        digest: SHA-256 of the key, 64 hexadecimal digits.
    """

    key_id: str
    digest: str

    @classmethod
    def of(cls, text: str) -> "Key":
        """What is to be known of the key `text`."""
        content = text.encode("utf-8", "surrogatepass")
        identity = hashlib.blake2b(content, digest_size=8, person=b"cxr key id").hexdigest()
        return cls(identity, hashlib.sha256(content).hexdigest())


@dataclass(frozen=True)
class KeyRing:
    """The keys that are valid, newest first."""

    keys: tuple[Key, ...]

    def find(self, text: str) -> Key | None:
        """The valid key that `text` is; how long this takes says nothing of which, or of how nearly it is one."""
        asked = Key.of(text).digest
        matches = [hmac.compare_digest(asked, key.digest) for key in self.keys]
        return next((key for key, same in zip(self.keys, matches, strict=True) if same), None)

    def has(self, key_id: str) -> bool:
        """Whether the key of this id is still valid."""
        return any(key.key_id == key_id for key in self.keys)


Rings = Callable[[], KeyRing]
"""Gives the keys that are valid now."""


def make_key() -> str:
    """A new key, 256 random bits."""
    return "cxr_" + secrets.token_urlsafe(32)


def open_keys(path: Path, environment: Mapping[str, str] = os.environ) -> tuple[Rings, str | None]:
    """The keys to serve with: those of the environment, else those of the file; where there are none, one is made.

    Call it once, before worker processes start, so that they do not each make a key.

    Args:
        path: The key file, which `rotate_keys` writes; the folder above exists. Not touched where the environment
            has keys.
        environment: Where CXR_API_KEYS is looked up: one key, or two with a comma between.

    Returns:
        What gives the valid keys, and the new key where one was made: show it once, it is stored nowhere.

    Raises:
        ConfigError: A key is too easy to guess, there are too many, or the file cannot be used or written.
    """
    if VARIABLE in environment:
        ring = read_variable(environment[VARIABLE])
        return (lambda: ring), None
    made = None if path.exists() else rotate_keys(path)
    rings = KeyFile(path)
    rings()
    return rings, made


def read_variable(value: str) -> KeyRing:
    """The keys of CXR_API_KEYS.

    Raises:
        ConfigError: A key is too easy to guess, or there are none or too many.
    """
    texts = [text.strip() for text in value.split(",")]
    if len(texts) > MOST_KEYS:
        raise ConfigError(f"expected at most {MOST_KEYS} keys in {VARIABLE}, got {len(texts)}; leave the oldest out")
    for text in texts:
        _check_strength(text)
    return KeyRing(tuple(Key.of(text) for text in texts))


def rotate_keys(path: Path) -> str:
    """Make a key and store it before the others; the newest two stay valid, so that clients can change over.

    A server that runs takes notice at its next request.

    Args:
        path: The key file, made where there is none; the folder above exists.

    Returns:
        The new key: show it once, it is stored nowhere.

    Raises:
        ConfigError: The file cannot be used or written.
    """
    old = read_keys(path).keys if path.exists() else ()
    text = make_key()
    _write_keys(path, KeyRing((Key.of(text), *old)[:MOST_KEYS]))
    return text


def read_keys(path: Path) -> KeyRing:
    """The keys of a key file.

    Raises:
        ConfigError: There is none, others may read it, or `rotate_keys` did not write it.
    """
    try:
        mode = path.stat().st_mode & 0o777
        description = json.loads(path.read_text(encoding="utf-8"))
        keys = tuple(Key(str(key["id"]), str(key["sha256"])) for key in description["keys"])
        usable = description["format"] == FORMAT and 1 <= len(keys) <= MOST_KEYS
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"expected a key file in {path}, got {type(error).__name__}; delete it to have a new key made"
        ) from error
    if mode & 0o077:
        raise ConfigError(f"expected {path} to be readable by its owner alone, got mode {mode:o}; chmod 600 {path}")
    if not usable:
        raise ConfigError(
            f"expected one or two keys of format {FORMAT} in {path}, got others; delete it to have a new key made"
        )
    return KeyRing(keys)


class KeyFile:
    """The keys of a file, read again whenever it was written.

    Args:
        path: The key file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen: tuple[int, int] | None = None
        self.ring = KeyRing(())

    def __call__(self) -> KeyRing:
        """The keys that are valid now.

        Raises:
            ConfigError: As of `read_keys`.
        """
        try:
            found = self.path.stat()
        except OSError:
            return read_keys(self.path)
        written = (found.st_ino, found.st_mtime_ns)
        if written != self.seen:
            self.ring, self.seen = read_keys(self.path), written
        return self.ring


def _check_strength(text: str) -> None:
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigError(f"expected keys of plain characters in {VARIABLE}, got others; use letters, digits, - and _")
    if len(text) < FEWEST_CHARACTERS or len(set(text)) < FEWEST_DIFFERENT:
        raise ConfigError(
            f"expected keys of at least {FEWEST_CHARACTERS} characters, {FEWEST_DIFFERENT} of them different, in "
            f"{VARIABLE}, got one of {len(text)}; make one with: openssl rand -hex 32"
        )


def _write_keys(path: Path, ring: KeyRing) -> None:
    """Put a file that only its owner can read in place of the old one, whole or not at all."""
    values = {"format": FORMAT, "keys": [{"id": key.key_id, "sha256": key.digest} for key in ring.keys]}
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        part.touch(mode=0o600, exist_ok=False)
        part.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise ConfigError(
            f"expected to write the key file {path}, got {type(error).__name__}; make its folder writable"
        ) from error
