"""Download a public dataset from Kaggle: the same as `cxr data get`. Default: SIIM-FISABIO-RSNA COVID-19 Detection."""

import sys

from cxr.cli import main

if __name__ == "__main__":
    sys.exit(main(["data", "get", *sys.argv[1:]]))
