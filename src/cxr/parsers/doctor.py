"""`cxr doctor`: what works on this machine."""

import argparse

from cxr.parsers.group import Commands


def add(commands: Commands) -> None:
    """Add it to the commands of `cxr`."""
    parser = commands.add_parser("doctor", help="what works on this machine, with a remedy for what does not")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=_run_doctor)


def _run_doctor(options: argparse.Namespace) -> int:
    from cxr.doctor import checks_to_json, examine, is_healthy, print_checks

    checks = examine()
    if options.json:
        print(checks_to_json(checks))
    else:
        print_checks(checks)
    return 0 if is_healthy(checks) else 1
