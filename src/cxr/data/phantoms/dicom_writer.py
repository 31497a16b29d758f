"""Radiographs as DICOM files with headers like those of clinics. Knows nothing of folders; nothing else writes DICOM.

Every file says in several elements that it is synthetic: Patient's Name, Patient Comments, Image Comments, Institution
Name and Quality Control Image (0028,0300), the standard's own mark of phantom images.
"""

from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from cxr.data.phantoms.chance import make_uid
from cxr.data.phantoms.cohort import ImagePlan
from cxr.data.phantoms.drawing import Array
from cxr.data.phantoms.film import Exposure
from cxr.data.phantoms.radiograph import Radiograph

Pixels = npt.NDArray[np.uint16]
_SYNTAXES = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "rle": RLELossless,
    "jpeg2000": JPEG2000Lossless,
    "jpegls": JPEGLSLossless,
}
_NOTE = "Synthetic phantom image: no patient, no person"
_SPREAD = 3.2  # latitudes of log signal over the whole range of stored values


@dataclass(frozen=True)
class ImageHeader:
    """What the header says beside the pixels.

    Attributes:
        uids: Study, series and SOP instance UID.
        patient_number: Counted from 1.
        sex: 'F' or 'M'.
        age: Years.
        modality: 'CR' or 'DX'.
        date: YYYYMMDD.
        time: HHMMSS.
        pixel_mm: Side of a detector pixel in mm.
    """

    uids: tuple[str, str, str]
    patient_id: str
    patient_number: int
    sex: str
    age: int
    modality: str
    manufacturer: str
    institution: str
    date: str
    time: str
    series_number: int
    pixel_mm: float


def encode_dicom(radiograph: Radiograph, plan: ImagePlan, header: ImageHeader) -> bytes:
    """A whole DICOM file; the same arguments give the same bytes."""
    pixels, grey = store_pixels(radiograph, plan)
    meta = FileMetaDataset()
    sop_class = ComputedRadiographyImageStorage if header.modality == "CR" else DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = header.uids[2]
    meta.TransferSyntaxUID = ExplicitVRLittleEndian if plan.encoding == "rle" else _SYNTAXES[plan.encoding]
    meta.ImplementationClassUID = make_uid(0, "implementation")
    meta.ImplementationVersionName = "CXR_PHANTOM_1"
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = sop_class
    dataset.update(_who(header))
    dataset.update(_how(plan, header))
    dataset.update(grey)
    _set_pixels(dataset, pixels, plan)
    out = BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def store_pixels(radiograph: Radiograph, plan: ImagePlan) -> tuple[Pixels, Dataset]:
    """Stored values and the elements that lead from them to the grey values of `radiograph.display`.

    Returns:
        pixels: (H, W) uint16 with plan.bits_stored significant bits.
        elements: Rescale, window and lookup table, as far as the plan has them.
    """
    highest = 2**plan.bits_stored - 1
    if plan.voi == "lut":
        highest = min(highest, 4095)
    low, high = (round(0.06 * highest), round(0.9 * highest)) if plan.voi == "window" else (0, highest)
    share = radiograph.display if plan.voi in ("none", "window") else _log_share(radiograph.signal, radiograph.exposure)
    if plan.photometric == "MONOCHROME1":
        share = 1 - share
    pixels = np.rint(low + share * (high - low)).astype(np.uint16)
    elements = Dataset()
    slope, intercept = (0.5, -100) if _is_rescaled(plan) else (1, 0)
    if _is_rescaled(plan):
        elements.RescaleSlope, elements.RescaleIntercept, elements.RescaleType = str(slope), str(intercept), "US"
    elements.update(_voi(plan, low * slope + intercept, high * slope + intercept))
    return pixels, elements


def _is_rescaled(plan: ImagePlan) -> bool:
    """A lookup table needs whole numbers, so it goes without slope and intercept."""
    return plan.rescale and plan.voi != "lut"


def _log_share(signal: Array, exposure: Exposure) -> Array:
    """Log signal as a share of the range of stored values, middle grey at 0.5."""
    return np.clip((signal - np.float32(exposure.centre)) / np.float32(_SPREAD * exposure.latitude) + 0.5, 0, 1)


def _voi(plan: ImagePlan, low: float, high: float) -> Dataset:
    """Elements that map modality values from `low` (black) to `high` (white) to grey."""
    elements = Dataset()
    if plan.voi == "window":
        elements.WindowCenter, elements.WindowWidth = f"{(low + high) / 2 + 0.5:.10g}", f"{high - low + 1:.10g}"
        elements.WindowCenterWidthExplanation = "NORMAL"
    elif plan.voi == "sigmoid":
        elements.WindowCenter, elements.WindowWidth = f"{(low + high) / 2:.10g}", f"{(high - low) / _SPREAD:.10g}"
        elements.VOILUTFunction = "SIGMOID"
    elif plan.voi == "lut":
        entries = np.arange(int(low), int(high) + 1)
        grey = 1 / (1 + np.exp(-4 * _SPREAD * ((entries - low) / (high - low) - 0.5)))
        table = Dataset()
        table.add_new(0x00283002, "US", [len(entries), int(low), 12])
        table.LUTExplanation = "Film curve"
        table.add_new(0x00283006, "OW", np.rint(grey * 4095).astype("<u2").tobytes())
        elements.VOILUTSequence = [table]
    return elements


def _who(header: ImageHeader) -> Dataset:
    """Patient, study, series and equipment."""
    elements = Dataset()
    elements.StudyInstanceUID, elements.SeriesInstanceUID, elements.SOPInstanceUID = header.uids
    elements.PatientName = f"Phantom^{header.patient_number:04d}"
    elements.PatientID = header.patient_id
    elements.PatientSex, elements.PatientAge, elements.PatientBirthDate = header.sex, f"{header.age:03d}Y", ""
    elements.PatientComments = elements.ImageComments = _NOTE
    elements.QualityControlImage = "YES"
    elements.PatientIdentityRemoved, elements.DeidentificationMethod = "YES", "Never had an identity"
    for name in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"):
        setattr(elements, name, header.date)
    for name in ("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime"):
        setattr(elements, name, header.time)
    elements.AccessionNumber = elements.ReferringPhysicianName = elements.StudyID = ""
    elements.Modality, elements.Manufacturer = header.modality, header.manufacturer
    elements.ManufacturerModelName = "Synthetic"
    elements.InstitutionName = header.institution
    elements.SeriesNumber, elements.InstanceNumber = str(header.series_number), "1"
    return elements


def _how(plan: ImagePlan, header: ImageHeader) -> Dataset:
    """Body part, view and detector."""
    elements = Dataset()
    elements.BodyPartExamined, elements.ImageType = "CHEST", ["DERIVED", "PRIMARY"]
    elements.BurnedInAnnotation, elements.LossyImageCompression = "NO", "00"
    view = {"PA": "PA", "AP": "AP", "LATERAL": "LL"}[plan.view]
    if plan.view_known == "position":
        elements.ViewPosition = view
    named = plan.view_known in ("position", "description")
    elements.SeriesDescription = f"Chest {'lateral' if view == 'LL' else view}" if named else "Chest"
    if plan.view_known in ("position", "orientation"):
        elements.PatientOrientation = ["P", "F"] if view == "LL" else ["L", "F"]
    elements.KVP = "90" if view == "AP" else "120"
    elements.ImagerPixelSpacing = [f"{header.pixel_mm:.6g}"] * 2
    if header.modality == "DX":
        elements.PresentationIntentType = "FOR PRESENTATION"
        elements.PresentationLUTShape = "INVERSE" if plan.photometric == "MONOCHROME1" else "IDENTITY"
    return elements


def _set_pixels(dataset: Dataset, pixels: Pixels, plan: ImagePlan) -> None:
    """Write the image pixel module, compressed as the plan says."""
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.PhotometricInterpretation = plan.photometric
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, plan.bits_stored, plan.bits_stored - 1
    dataset.PixelData = pixels.astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    if plan.encoding == "rle":
        dataset.compress(RLELossless, encoding_plugin="gdcm", generate_instance_uid=False)
    elif plan.encoding in _ENCODERS:
        dataset.PixelData = encapsulate([_ENCODERS[plan.encoding](dataset.PixelData, plan, pixels.shape)])


def _jpeg2000(raw: bytes, plan: ImagePlan, shape: tuple[int, ...]) -> bytes:
    import openjpeg

    return bytes(
        openjpeg.encode_pixel_data(
            raw,
            rows=shape[0],
            columns=shape[1],
            samples_per_pixel=1,
            bits_stored=plan.bits_stored,
            pixel_representation=0,
            photometric_interpretation=plan.photometric,
        )
    )


def _jpegls(raw: bytes, plan: ImagePlan, shape: tuple[int, ...]) -> bytes:
    import jpeg_ls

    return bytes(
        jpeg_ls.encode_pixel_data(
            raw, rows=shape[0], columns=shape[1], samples_per_pixel=1, bits_stored=plan.bits_stored
        )
    )


_ENCODERS = {"jpeg2000": _jpeg2000, "jpegls": _jpegls}
