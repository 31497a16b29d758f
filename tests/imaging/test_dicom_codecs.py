import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import pixel_array
from pydicom.uid import UID, ExplicitVRLittleEndian

from cxr.imaging import dicom_codecs
from cxr.imaging.dicom_codecs import FAMILIES, available_decoders


@pytest.mark.parametrize("family", FAMILIES)
def test_transfer_syntaxes_are_named_like_their_codec(family):
    words = {"uncompressed": "VR", "RLE": "RLE", "JPEG-LS": "JPEG-LS"}
    for syntax in FAMILIES[family]:
        assert words.get(family, family.split()[-1]) in UID(syntax).name


@pytest.mark.parametrize("family", ["RLE", "JPEG-LS"])
def test_a_codec_said_to_work_does(family):
    pixels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.Rows, image.Columns, image.SamplesPerPixel, image.PixelRepresentation = 64, 64, 1, 0
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PhotometricInterpretation = 16, 16, 15, "MONOCHROME2"
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    image.PixelData = pixels.tobytes()
    image["PixelData"].VR = "OW"
    image.compress(FAMILIES[family][0])
    assert available_decoders()[family]
    assert np.array_equal(pixel_array(image), pixels)


def test_a_missing_decoder_is_said_to_be_missing(monkeypatch):
    class Decoder:
        def __init__(self, syntax: str) -> None:
            self.is_available = syntax != "1.2.840.10008.1.2.4.81"

    monkeypatch.setattr(dicom_codecs, "get_decoder", Decoder)
    assert [name for name, works in available_decoders().items() if not works] == ["JPEG-LS"]
