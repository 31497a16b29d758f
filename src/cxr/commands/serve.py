"""`cxr serve`: words of the command line to what a server is started with. Knows nothing of HTTP."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cxr.errors import ConfigError, require_extra
from cxr.inference.bundle_folder import find_bundle
from cxr.serving.keys import VARIABLE, open_keys, rotate_keys
from cxr.serving.settings import MIB, Limits, Settings, usable_cores

Made = TypeVar("Made")
DEMO = "runs/demo"
KEYS = "serve_keys.json"
PACKAGES = ("fastapi", "uvicorn", "httptools", "python_multipart", "prometheus_client", "itsdangerous")


def choose_settings(options: argparse.Namespace, log_folder: Path) -> Settings:
    """The settings that the options of the command ask for.

    Raises:
        ConfigError: A value cannot be used.
        WeightsError: There is no bundle.
        MissingExtraError: The server's packages are not installed.
    """
    for package in PACKAGES:
        require_extra(package, "serve")
    if (options.bundle is None) != options.demo:
        raise ConfigError("expected either --bundle FOLDER or --demo; give one of them")
    limits = Limits(
        max_body_bytes=options.max_mb * MIB,
        max_waiting_bytes=max(Limits.max_waiting_bytes, options.max_mb * MIB),
        max_file_bytes=max(Limits.max_file_bytes, options.max_mb * MIB),
        max_files=options.max_files,
        queue_length=options.queue,
        seconds=options.seconds,
        decode_seconds=-(-options.seconds // 2),
    )
    return Settings(
        bundle=find_demo(log_folder) if options.demo else find_bundle(options.bundle),
        engine=options.engine,
        host=options.host,
        port=options.port,
        workers=options.workers,
        decoders=usable_cores() if options.decoders is None else options.decoders,
        limits=limits,
        allowed_origins=tuple(options.origin),
        image_hosts=tuple(options.image_host),
        key_file=None if options.without_keys else find_key_file(options, log_folder),
        metrics_open=options.metrics_open,
    )


def find_key_file(options: argparse.Namespace, log_folder: Path) -> Path:
    """Where the keys of clients lie."""
    path: Path = log_folder / KEYS if options.keys is None else options.keys
    return path


def choose_keys(settings: Settings) -> str | None:
    """A key to be shown once, where a server has none yet.

    Raises:
        ConfigError: The key file cannot be used.
    """
    if settings.key_file is None:
        return None
    if VARIABLE in os.environ:
        return open_keys(settings.key_file)[1]
    return _in_folder(settings.key_file, lambda path: open_keys(path)[1])


def make_new_key(options: argparse.Namespace, log_folder: Path) -> str:
    """A key to be shown once, made and stored; a server that runs takes notice by itself.

    Raises:
        ConfigError: The key file cannot be used, or servers take their keys from elsewhere or need none.
    """
    if options.without_keys:
        raise ConfigError("expected --new-key or --without-keys, got both; leave one out")
    if VARIABLE in os.environ:
        raise ConfigError(f"expected --new-key or {VARIABLE}, whose keys alone are valid, got both; unset {VARIABLE}")
    return _in_folder(find_key_file(options, log_folder), rotate_keys)


def _in_folder(path: Path, make: Callable[[Path], Made]) -> Made:
    """What is made at the path, whose folder is made first."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return make(path)
    except OSError as error:
        raise ConfigError(
            f"expected to write the key file {path}, got {type(error).__name__}; choose another with --keys"
        ) from error


def find_demo(log_folder: Path) -> Path:
    """The bundle of the newest run of ``make demo``.

    Raises:
        ConfigError: There is none.
    """
    runs = sorted((log_folder / DEMO).glob("*/bundle/bundle.json"))
    if not runs:
        raise ConfigError(f"expected a run of the demo in {log_folder / DEMO}, found none; make one with: make demo")
    return find_bundle(runs[-1].parent.parent)
