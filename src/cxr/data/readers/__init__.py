"""One reader per dataset: a folder on disk -> a raw table of samples for the gate in `cxr.data.samples`."""

from cxr.data.readers.chest_xray import make_chest_xray_samples
from cxr.data.readers.covidx import make_covidx_samples, read_covidx_lists
from cxr.data.readers.image_folder import make_image_folder_samples
from cxr.data.readers.merge import make_merged_samples
from cxr.data.readers.npz import make_npz_samples
from cxr.data.readers.phantom import make_phantom_samples
from cxr.data.readers.siim import make_siim_samples
from cxr.data.readers.table import make_table_samples

__all__ = [
    "make_chest_xray_samples",
    "make_covidx_samples",
    "make_image_folder_samples",
    "make_merged_samples",
    "make_npz_samples",
    "make_phantom_samples",
    "make_siim_samples",
    "make_table_samples",
    "read_covidx_lists",
]
