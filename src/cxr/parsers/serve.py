"""`cxr serve`: a model behind HTTP."""

import argparse
import os
from pathlib import Path

from cxr.parsers.group import ENGINES, Commands


def add(commands: Commands) -> None:
    """Add it to the commands of `cxr`."""
    parser = commands.add_parser("serve", help="predictions over HTTP, and a page in the browser (Linux)")
    parser.add_argument("--bundle", type=Path, metavar="FOLDER", help="a bundle, or a run folder with one")
    parser.add_argument("--demo", action="store_true", help="serve the newest model of make demo")
    parser.add_argument("--engine", choices=ENGINES, help="what runs the nets (default: the fastest in the bundle)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: 8000)")
    parser.add_argument("--workers", type=int, default=1, help="processes that each hold the model (default: 1)")
    parser.add_argument("--decoders", type=int, metavar="N", help="processes of each that decode (default: all cores)")
    parser.add_argument(
        "--keys", type=Path, metavar="FILE", help="of the clients' keys (default: serve_keys.json in the log folder)"
    )
    parser.add_argument("--new-key", action="store_true", help="make a key, show it and end; the newest two are valid")
    parser.add_argument("--without-keys", action="store_true", help="let everybody ask who reaches the address")
    parser.add_argument(
        "--origin", action="append", default=[], metavar="URL", help="of a site whose pages may ask; may be repeated"
    )
    parser.add_argument(
        "--image-host", action="append", default=[], metavar="HOST",
        help="from which images are fetched by their address; may be repeated",
    )  # fmt: skip
    parser.add_argument("--metrics-open", action="store_true", help="let everybody read /metrics")
    parser.add_argument("--max-mb", type=int, default=64, metavar="N", help="of a request (default: 64)")
    parser.add_argument("--max-files", type=int, default=64, metavar="N", help="images in a request (default: 64)")
    parser.add_argument("--queue", type=int, default=256, metavar="N", help="images that may wait (default: 256)")
    parser.add_argument("--seconds", type=int, default=30, metavar="N", help="that a request may take (default: 30)")
    parser.set_defaults(run=_run_serve, after_interrupt="what was asked before is answered")


def _run_serve(options: argparse.Namespace) -> int:
    from cxr.commands.serve import choose_keys, choose_settings, make_new_key

    log_folder = Path(os.environ.get("CXR_LOG_DIR", "logs"))
    if options.new_key:
        print(f"new key, shown only now: {make_new_key(options, log_folder)}")
        return 0
    settings = choose_settings(options, log_folder)
    from cxr.serving.run import check, serve

    check(settings)
    key = choose_keys(settings)
    if key is not None:
        print(f"new key, shown only now: {key}", flush=True)
    serve(settings, tell=lambda address: print(f"serving {settings.bundle} at {address}", flush=True))
    return 0
