"""Kermany 2018, the Kaggle set chest-xray-pneumonia: paediatric radiographs whose file names tell child and germ.

Knows nothing of classes and of splits that are carved later, and opens no image. The children are 1 to 5 years old and
from one hospital, whatever other descriptions of this set say.
"""

from pathlib import Path

import pandas as pd

from cxr.data.readers.image_folder import make_image_folder_samples
from cxr.data.samples import list_first
from cxr.errors import DataError

_PNEUMONIA_NAME = r"^(person\d+_(bacteria|virus))_"
_NORMAL_NAME = r"^((?:NORMAL2-)?IM-\d+)-"


def make_chest_xray_samples(root: str | Path, *, merge_val: bool = True) -> pd.DataFrame:
    """List the images of `train|val|test/{NORMAL,PNEUMONIA}/` with finding and child from the file names.

    Args:
        root: The folder with `train`, `val` and `test`, or those of them that are at hand.
        merge_val: Count the official validation part, 16 images, as training; validation is then carved by child.

    Returns:
        The table of `make_image_folder_samples` with the findings 'normal', 'bacteria' and 'virus', and `patient_id`:
        `personN_bacteria`, `personN_virus` (two different children), `IM-N` or `NORMAL2-IM-N`; missing where a normal
        image's name has another form.

    Raises:
        DataError: No such folder or layout, or an image whose finding the folder and file name do not tell.
    """
    samples = make_image_folder_samples(root, dataset="chest_xray")
    names = samples["image_path"].map(lambda path: Path(path).name)
    child = names.str.extract(_PNEUMONIA_NAME)
    folder = samples["finding"].str.upper()
    samples["finding"] = child[1].where(folder == "PNEUMONIA").mask(folder == "NORMAL", "normal")
    unknown = samples.loc[samples["finding"].isna(), "sample_id"]
    if len(unknown):
        raise DataError(
            f"expected in {root} folders NORMAL and PNEUMONIA, and in PNEUMONIA files named personN_bacteria_* or "
            f"personN_virus_*, but {len(unknown)} images are not: {list_first(unknown)}; restore their names, or read "
            "the folders alone with data=image_folder"
        )
    samples["patient_id"] = child[0].where(folder == "PNEUMONIA", names.str.extract(_NORMAL_NAME)[0])
    if merge_val and "split" in samples:
        samples["split"] = samples["split"].replace("val", "train")
    return samples
