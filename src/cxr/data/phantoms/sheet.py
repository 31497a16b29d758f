"""A labelled contact sheet of the four classes, to be judged by eye. Knows nothing of cohorts or folders."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from cxr.data.phantoms.anatomy import draw_person
from cxr.data.phantoms.chance import stream
from cxr.data.phantoms.findings import CLASS_NAMES, NEGATIVE, draw_findings
from cxr.data.phantoms.radiograph import SOURCES, draw_exam, render

Sheet = npt.NDArray[np.uint8]
_VISIBILITIES = (1.0, 0.8, 0.6, 0.45, 0.0)  # from plain to not drawn, one for each column
_SIZE, _LINE, _GAP = 236, 19, 4


def make_contact_sheet(seed: int) -> Sheet:
    """One row for each class, one column for each visibility from plain to not drawn: (H, W), 0 to 255."""
    rows = []
    for class_name in CLASS_NAMES:
        tiles = [_tile(class_name, column, seed) for column in range(len(_VISIBILITIES))]
        rows.append(np.hstack(tiles))
    return np.vstack(rows)


def write_contact_sheet(path: Path | str, seed: int) -> None:
    """Write `make_contact_sheet` as a PNG of 64 grey levels."""
    sheet = (make_contact_sheet(seed) >> 2) * np.uint8(255 // 63)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(cv2.imencode(".png", sheet, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes())


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
    drawn = f"{findings[0].kind} {visibility:g}" if findings else view
    label = f"{class_name.split()[0]}: {drawn if visibility > 0 or not findings else 'not drawn'}"
    cv2.putText(tile, label, (3, _LINE - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.42, 255, 1, cv2.LINE_AA)
    return tile
