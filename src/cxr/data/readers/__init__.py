"""One reader per dataset: a folder on disk -> a raw table of samples for the gate in `cxr.data.samples`."""

from cxr.data.readers.chest_xray import make_chest_xray_samples
from cxr.data.readers.image_folder import make_image_folder_samples
from cxr.data.readers.phantom import make_phantom_samples
from cxr.data.readers.siim import make_siim_samples

__all__ = ["make_chest_xray_samples", "make_image_folder_samples", "make_phantom_samples", "make_siim_samples"]
