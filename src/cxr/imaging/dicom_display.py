"""The display elements of a DICOM data set: what `cxr.imaging.intensity` needs to know of it. Decodes no pixels."""

from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from cxr.imaging.intensity import Array, LookupTable, Range, Rendering, Rescale, Window


def make_rendering(dataset: Dataset, pixels: Array) -> Rendering:
    """How the stored values of a monochrome data set become brightness.

    Args:
        dataset: The data set; its elements may be invalid in any way.
        pixels: (H, W) decoded stored values, of which only the type is read.

    Returns:
        Its rendering. The VOI LUT comes before the window, the first of several before the others.

    Raises:
        Exception: Of any type, where an element that is present cannot be decoded.
    """
    return Rendering(
        nominal=_nominal(dataset, pixels),
        modality=_modality(dataset),
        voi=_voi(dataset),
        inverted=dataset.PhotometricInterpretation == "MONOCHROME1",
        padding=_padding(dataset),
    )


def _nominal(dataset: Dataset, pixels: Array) -> Range:
    if pixels.dtype.kind == "f":
        return 0.0, 1.0
    bits = int(dataset.BitsStored)
    return (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if _is_signed(dataset) else (0.0, 2.0**bits - 1)


def _is_signed(dataset: Dataset) -> bool:
    return dataset.get("PixelRepresentation") == 1


def _modality(dataset: Dataset) -> Rescale | LookupTable | None:
    if dataset.get("ModalityLUTSequence"):
        return _lookup_table(dataset.ModalityLUTSequence[0], dataset)
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    return None if slope is None or intercept is None else Rescale(float(slope), float(intercept))


def _voi(dataset: Dataset) -> Window | LookupTable | None:
    if dataset.get("VOILUTSequence"):
        return _lookup_table(dataset.VOILUTSequence[0], dataset)
    center, width = _first(dataset.get("WindowCenter")), _first(dataset.get("WindowWidth"))
    if center is None or width is None:
        return None
    function = dataset.get("VOILUTFunction")
    return Window(float(center), float(width), function.upper() if function else "LINEAR")


def _first(value: Any) -> Any:
    """The first of several values, or the only one; None where there is none."""
    if isinstance(value, MultiValue):
        return value[0] if len(value) else None
    return value


def _lookup_table(item: Dataset, dataset: Dataset) -> LookupTable:
    count, first, bits = (int(number) for number in item.LUTDescriptor)
    count = count % 2**16 if count % 2**16 else 2**16
    if _is_signed(dataset) and first >= 2**15:
        first -= 2**16  # a signed number in an unsigned element
    data = item.LUTData
    if isinstance(data, bytes):
        order = "<" if dataset.original_encoding[1] else ">"
        entries = np.frombuffer(data, dtype=f"{order}u2" if len(data) >= 2 * count else "u1")[:count]
    else:
        entries = np.atleast_1d(np.asarray(data))[:count]
    if not len(entries):
        raise ValueError("a look-up table without entries")
    return LookupTable(first, entries.astype(np.float64), bits)


def _padding(dataset: Dataset) -> Range | None:
    value, limit = dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")
    if not isinstance(value, int):
        return None
    ends = (value, limit if isinstance(limit, int) else value)
    return float(min(ends)), float(max(ends))
