"""Phantom radiographs as the files that somebody would drop onto the page."""

from io import BytesIO

import numpy as np
from PIL import Image

from cxr.data.phantoms.anatomy import draw_person
from cxr.data.phantoms.cohort import ImagePlan
from cxr.data.phantoms.dicom_writer import ImageHeader, encode_dicom
from cxr.data.phantoms.findings import draw_findings
from cxr.data.phantoms.radiograph import SOURCES, Radiograph, draw_exam, render


def draw(number: int, size: int, class_name: str = "normal") -> Radiograph:
    """A frontal chest; the same number gives the same one."""
    rng = np.random.default_rng(number)
    findings = draw_findings(class_name, 1.0, rng)
    return render(draw_exam(draw_person(rng), "PA", SOURCES[0], size, findings, rng))


def to_dicom(radiograph: Radiograph) -> bytes:
    """A DICOM file of 12 bits, stored with bright meaning air."""
    plan = ImagePlan("PA", "position", "explicit", 12, "MONOCHROME1", "none", False)
    header = ImageHeader(
        uids=("2.25.21", "2.25.22", "2.25.23"), patient_id="PHANTOM-00000002", patient_number=2, sex="F", age=61,
        modality="CR", manufacturer="Agfa", institution="Synthetic site-a", date="20200301", time="101500",
        series_number=1, pixel_mm=1.0,
    )  # fmt: skip
    return encode_dicom(radiograph, plan, header)


def to_png(radiograph: Radiograph) -> bytes:
    """A PNG file of 8 bits."""
    out = BytesIO()
    Image.fromarray(np.uint8(np.rint(255 * radiograph.display))).save(out, "png")
    return out.getvalue()
