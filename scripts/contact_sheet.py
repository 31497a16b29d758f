"""Write one PNG that shows how image files are read: python scripts/contact_sheet.py sheet.png FILE_OR_FOLDER ...

Each tile is what `cxr.imaging.image.read_pixels` gives, with the file's name, photometric interpretation and transfer
syntax under it; a file that gives no image shows its error instead. For a person to judge: bones must be white.
"""

import argparse
import math
import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cxr.errors import ImageError
from cxr.imaging.dicom import read_dicom_header
from cxr.imaging.image import is_dicom, read_pixels
from cxr.imaging.resize import fit_to_size

TILE = 320
CAPTION_LINES = 3
LINE_HEIGHT = 14
CHARACTERS = 52


def main() -> None:
    """Read the command line and write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="PNG file to write")
    parser.add_argument("paths", type=Path, nargs="+", help="image files, or folders that are searched for them")
    parser.add_argument("--columns", type=int, default=4)
    arguments = parser.parse_args()
    if arguments.output.suffix.lower() != ".png":
        parser.error(f"expected an output file that ends in .png, got {arguments.output}; change its name")
    if arguments.columns < 1:
        parser.error(f"expected --columns to be 1 or more, got {arguments.columns}; change it")
    files = [file for path in arguments.paths for file in list_files(path)]
    if not files:
        parser.error(f"expected files in {', '.join(map(str, arguments.paths))}, found none; name others")
    try:
        make_sheet(files, arguments.columns).save(arguments.output)
    except OSError as error:
        parser.error(f"expected to write {arguments.output}, but: {error}; name another place")
    print(f"{arguments.output}: {len(files)} files")


def list_files(path: Path) -> list[Path]:
    """The file itself, or every file below the folder, sorted."""
    return sorted(child for child in path.rglob("*") if child.is_file()) if path.is_dir() else [path]


def make_sheet(files: list[Path], columns: int) -> Image.Image:
    """All tiles in a grid, row by row."""
    height = TILE + CAPTION_LINES * LINE_HEIGHT + 6
    sheet = Image.new("L", (columns * TILE, math.ceil(len(files) / columns) * height), 40)
    for index, file in enumerate(files):
        sheet.paste(make_tile(file, height), (index % columns * TILE, index // columns * height))
    return sheet


def make_tile(file: Path, height: int) -> Image.Image:
    """One file: its image or its error, and a caption."""
    tile = Image.new("L", (TILE, height), 40)
    draw = ImageDraw.Draw(tile)
    try:
        pixels = fit_to_size(read_pixels(file), (TILE - 4, TILE - 4), "pad")
        tile.paste(Image.fromarray(np.rint(pixels * 255).astype(np.uint8)), (2, 2))
    except ImageError as error:
        draw.multiline_text((6, 6), textwrap.fill(str(error), CHARACTERS), fill=255, font=ImageFont.load_default(11))
    draw.multiline_text((4, TILE + 2), "\n".join(caption(file)), fill=220, font=ImageFont.load_default(11))
    return tile


def caption(file: Path) -> list[str]:
    """Name, and for DICOM the photometric interpretation, view and transfer syntax."""
    try:
        if not is_dicom(file):
            return [file.name]
        header = read_dicom_header(file)
    except ImageError:
        return [file.name, "unreadable header"]
    kind = f"{header.photometric_interpretation} {header.bits_stored} bit, {header.modality} {header.view_position}"
    return [file.name, kind, str(header.transfer_syntax)]


if __name__ == "__main__":
    main()
