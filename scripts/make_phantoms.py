"""Write a cohort of synthetic chest radiographs: python scripts/make_phantoms.py --studies 300 --seed 0 --out DIR."""

import argparse
import dataclasses
from pathlib import Path

from cxr.data.phantoms.job import LAYOUTS
from cxr.data.phantoms.sheet import write_contact_sheet
from cxr.data.phantoms.spec import CohortSpec
from cxr.data.phantoms.tree import write_folder_cohort, write_siim_cohort
from cxr.errors import CxrError


def make_parser() -> argparse.ArgumentParser:
    """The command line: where and how, and every setting of CohortSpec under its own name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder that is absent, empty or a phantom cohort")
    parser.add_argument("--layout", choices=LAYOUTS, default="siim", help="DICOM studies or an image folder")
    parser.add_argument("--test-fraction", type=float, default=0.0, help="folder layout: share of patients for test/")
    parser.add_argument("--workers", type=int, help="processes; the files do not depend on it")
    parser.add_argument("--contact-sheet", type=Path, help="also write a PNG with examples of the four classes")
    spec = parser.add_argument_group("the cohort (described in cxr.data.phantoms.spec.CohortSpec)")
    for field in dataclasses.fields(CohortSpec):
        flag, default = "--" + field.name.replace("_", "-"), field.default
        if isinstance(default, bool):
            spec.add_argument(flag, action=argparse.BooleanOptionalAction, default=default, help="see CohortSpec")
        elif isinstance(default, tuple):
            spec.add_argument(flag, type=type(default[0]), nargs="+", default=list(default), help="see CohortSpec")
        else:
            spec.add_argument(flag, type=type(default), default=default, help="see CohortSpec")
    return parser


def main() -> None:
    """Read the command line and write what it asks for."""
    parser = make_parser()
    arguments = parser.parse_args()
    names = {field.name for field in dataclasses.fields(CohortSpec)}
    try:
        spec = CohortSpec.from_dict({name: value for name, value in vars(arguments).items() if name in names})
        if arguments.layout == "siim":
            write_siim_cohort(spec, arguments.out, arguments.workers)
        else:
            write_folder_cohort(spec, arguments.out, arguments.workers, arguments.test_fraction)
        if arguments.contact_sheet is not None:
            write_contact_sheet(arguments.contact_sheet, spec.seed)
    except CxrError as error:
        parser.exit(2, f"{error}\n")
    print(f"{spec.studies} synthetic studies in {arguments.out}")


if __name__ == "__main__":
    main()
