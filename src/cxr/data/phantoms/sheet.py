"""A labelled contact sheet of the four classes, to be judged by eye. Knows nothing of cohorts or folders."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from cxr.data.phantoms.anatomy import draw_person
from cxr.data.phantoms.chance import stream
from cxr.data.phantoms.findings import CLASS_NAMES, NEGATIVE, draw_findings
from cxr.data.phantoms.radiograph import SOURCES, draw_exam, render
from cxr.errors import DataError

Sheet = npt.NDArray[np.uint8]
_VISIBILITIES = (1.0, 0.85, 0.7, 0.55, 0.0)  # from plain to not drawn, one for each column
_SIZE, _LINE, _GAP = 236, 19, 4


def write_contact_sheet(path: Path | str, seed: int) -> None:
    """Write a PNG of 64 grey levels: a row for each class, a column for each visibility from plain to not drawn.

    Raises:
        DataError: The file cannot be written.
    """
    columns = range(len(_VISIBILITIES))
    sheet = np.vstack([np.hstack([_tile(name, column, seed) for column in columns]) for name in CLASS_NAMES])
    coarse = np.asarray(sheet >> 2, np.uint8) * np.uint8(255 // 63)
    encoded = cv2.imencode(".png", coarse, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(encoded)
    except OSError as error:
        raise DataError(f"expected to write the contact sheet {path}, but: {error}; name another place") from error


def _tile(class_name: str, column: int, seed: int) -> Sheet:
    """One labelled image with a margin."""
    rng = stream(seed, "sheet", class_name, column)
    visibility = 0.0 if class_name == NEGATIVE else _VISIBILITIES[column]
    findings = draw_findings(class_name, visibility, rng)
    view = "AP" if column % 3 == 2 else "PA"
    image = render(draw_exam(draw_person(rng), view, SOURCES[column % 2], 2 * _SIZE, findings, rng))
    small = cv2.resize(image.display, (_SIZE, _SIZE), interpolation=cv2.INTER_AREA)
    tile = np.zeros((_SIZE + _LINE + _GAP, _SIZE + _GAP), np.uint8)
    tile[_LINE : _LINE + _SIZE, :_SIZE] = np.rint(255 * small)
    shown = f"{findings[0].kind}, visibility {visibility:g}" if visibility > 0 else "nothing drawn"
    label = f"{class_name.split()[0]} ({view}): {shown}"
    cv2.putText(tile, label, (3, _LINE - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.36, 255, 1, cv2.LINE_AA)
    return tile
