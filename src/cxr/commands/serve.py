"""`cxr serve`: words of the command line to what a server is started with. Knows nothing of HTTP."""

import argparse
from pathlib import Path

from cxr.errors import ConfigError, require_extra
from cxr.inference.bundle_folder import find_bundle
from cxr.serving.keys import open_keys, rotate_keys
from cxr.serving.settings import MIB, Limits, Settings, usable_cores

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
        max_files=options.max_files,
        queue_length=options.queue,
        seconds=options.seconds,
        decode_seconds=-(-options.seconds // 2),
    )
    key_file = log_folder / KEYS if options.keys is None else options.keys
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
        key_file=None if options.without_keys else key_file,
        metrics_open=options.metrics_open,
    )


def choose_keys(settings: Settings, new: bool) -> str | None:
    """A key to be shown once: the first one of a server that has none, or the one that was asked for.

    Raises:
        ConfigError: The key file cannot be used, or a key is asked for where none is needed.
    """
    if settings.key_file is None:
        if new:
            raise ConfigError("expected --new-key or --without-keys, got both; leave one out")
        return None
    settings.key_file.parent.mkdir(parents=True, exist_ok=True)
    return rotate_keys(settings.key_file) if new else open_keys(settings.key_file)[1]


def find_demo(log_folder: Path) -> Path:
    """The bundle of the newest run of ``make demo``.

    Raises:
        ConfigError: There is none.
    """
    runs = sorted((log_folder / DEMO).glob("*/bundle/bundle.json"))
    if not runs:
        raise ConfigError(f"expected a run of the demo in {log_folder / DEMO}, found none; make one with: make demo")
    return find_bundle(runs[-1].parent.parent)
