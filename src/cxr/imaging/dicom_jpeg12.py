"""JPEG Extended with 12 bits per sample for pydicom, which asks none of its plugins for it although GDCM decodes it.

A decoding plugin as pydicom defines them; knows nothing of anything else. The pixels are those of dcmtk's `dcmdjpeg`.
Pillow is imported before GDCM: in the other order the next PNG that Pillow writes ends the process (double free).
"""

from PIL import Image  # noqa: F401

# isort: split
import gdcm
from pydicom.pixels import get_decoder
from pydicom.pixels.decoders.base import DecodeRunner
from pydicom.uid import JPEGExtended12Bit

DECODER_DEPENDENCIES = {JPEGExtended12Bit: ("gdcm>=3.0.25",)}
PRECISION = 12


def is_available(uid: str) -> bool:
    """Whether this plugin decodes the transfer syntax."""
    return uid in DECODER_DEPENDENCIES


def decode_frame(frame: bytes, runner: DecodeRunner) -> bytes:
    """The samples of one encoded frame: 16 bits each, little endian.

    Raises:
        NotImplementedError: If there is more than one sample per pixel, or they are not kept in 16 bits.
    """
    if runner.samples_per_pixel != 1 or runner.bits_allocated != 16:
        raise NotImplementedError("12-bit JPEG is decoded as one sample of 16 bits per pixel only")
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((runner.columns, runner.rows, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, PRECISION, PRECISION - 1, 0))
    return image.GetBuffer().encode("utf-8", "surrogateescape")


def install() -> None:
    """Make pydicom use this plugin in this process."""
    decoder = get_decoder(JPEGExtended12Bit)
    if "cxr" not in decoder.available_plugins:
        decoder.add_plugin("cxr", (__name__, "decode_frame"))
