"""Makes DICOM files: any bit depth, display element and lossless transfer syntax."""

import base64
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

UNCOMPRESSED = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
COMPRESSED = (RLELossless, JPEG2000Lossless, JPEGLSLossless, JPEGLossless, JPEGLosslessSV1)
LOSSLESS = (*UNCOMPRESSED, *COMPRESSED)
LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit)
_BY_GDCM = {
    JPEGBaseline8Bit: gdcm.TransferSyntax.JPEGBaselineProcess1,
    JPEGExtended12Bit: gdcm.TransferSyntax.JPEGExtendedProcess2_4,
    JPEGLossless: gdcm.TransferSyntax.JPEGLosslessProcess14,
    JPEGLosslessSV1: gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    JPEGLSLossless: gdcm.TransferSyntax.JPEGLSLossless,
    JPEG2000Lossless: gdcm.TransferSyntax.JPEG2000Lossless,
    RLELossless: gdcm.TransferSyntax.RLELossless,
}

TWELVE_BIT_JPEG = base64.b85decode(
    b"|JeWF01!$>Nk#wx0RR9200961|JwjV00IF40RaI50RaI50s;a81OoyB0s;jD1Oo&H1qKEN1qKEN2MGuU2MGrT1_%oX2?`1d3JL}Y"
    b"3k(Yi3<(Mf3je_X3k(1d01yEI5di<h02KfM0RR9100000000000000C4gbUd91s8i1_J;900000000000000B3@JB8RAX}g+5iXv"
    b"0RR9$0G)<d8XPF`ps{G&>j=Os4Gt7|&{(u?b&3cDfuX{W8VeSU&ajLEz|i4GjRlKF=UD&Q"
)
"""(16, 16) of 200 * row + 70 * column in 12 bits, encoded by dcmtk 3.6.7: `dcmcjpeg +ee +q 95`."""
TWELVE_BIT = (200 * np.arange(16)[:, None] + 70 * np.arange(16)).astype(np.uint16)


def make_dataset(stored: np.ndarray, bits: int | None = None, photometric: str = "MONOCHROME2", **elements: Any):
    """An uncompressed little-endian data set of `stored`: (H, W) or (H, W, 3) integers."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.Modality = "CR"
    dataset.Rows, dataset.Columns = stored.shape[:2]
    dataset.SamplesPerPixel = 3 if stored.ndim == 3 else 1
    if stored.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = 8 * stored.dtype.itemsize
    dataset.BitsStored = dataset.BitsAllocated if bits is None else bits
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.PixelData = stored.tobytes() + b"\0" * (stored.nbytes % 2)
    dataset["PixelData"].VR = "OB" if stored.itemsize == 1 else "OW"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def make_lut(entries: Any, first: int, bits: int) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(entries) % 2**16, first, bits]
    item["LUTDescriptor"].VR = "SS" if first < 0 else "US"
    item.LUTData = np.asarray(entries, dtype="<u2").tobytes()
    item["LUTData"].VR = "OW"
    item.ModalityLUTType = "US"
    return item


def save(path: Path, dataset: Dataset, stored: np.ndarray, syntax: str = ExplicitVRLittleEndian) -> Path:
    """Write `dataset` in the transfer syntax."""
    if syntax in _BY_GDCM:
        return _save_by_gdcm(path, dataset, syntax)
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = stored.astype(stored.dtype.newbyteorder(">")).tobytes()
        for item in (*dataset.get("ModalityLUTSequence", ()), *dataset.get("VOILUTSequence", ())):
            item.LUTData = np.frombuffer(item.LUTData, "<u2").astype(">u2").tobytes()
    dataset.file_meta.TransferSyntaxUID = syntax
    implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    pydicom.dcmwrite(path, dataset, implicit_vr=implicit, little_endian=little, enforce_file_format=True)
    return path


def save_encoded(path: Path, dataset: Dataset, frame: bytes, syntax: str) -> Path:
    """Write `dataset` with `frame`, whatever it holds, as its one compressed frame."""
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=True)
    return path


def _save_by_gdcm(path: Path, dataset: Dataset, syntax: str) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(_BY_GDCM[syntax]))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return path
