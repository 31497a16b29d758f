"""What `cxr data shards` does: a dataset named in the words of train.py -> its decoded images as shards."""

from collections.abc import Sequence
from pathlib import Path

from cxr.commands.data import make_folder
from cxr.compose import open_data
from cxr.data.shards import write_shards
from cxr.training.sources import stored_preprocess


def write(overrides: Sequence[str], out: Path | None) -> tuple[int, int, Path]:
    """Decode a dataset, as far as it is not decoded yet, and write its images as shards.

    Args:
        overrides: Words as for train.py.
        out: Where to; None for a folder among the logs.

    Returns:
        Number of shards, number of images, and the folder.

    Raises:
        CxrError: The words, the dataset or the folder cannot be used.
    """
    source = open_data(overrides)
    folder = make_folder(source, "shards", out)
    samples = source.decode()
    hashes = samples["content_hash"].tolist()
    images = source.images.open(samples["image_path"].tolist(), hashes)
    count = write_shards(images, hashes, stored_preprocess(source.config), folder)
    return count, len(set(hashes)), folder
