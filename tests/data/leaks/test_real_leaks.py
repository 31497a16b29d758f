"""Public datasets that are known to share images. Nothing is copied or written beside temporary files."""

from pathlib import Path

import cv2
import pytest

from cxr.data.cache import ImageCache
from cxr.data.file_index import FileIndex
from cxr.data.leaks.gate import find_external_leaks
from cxr.data.leaks.similar import SimilarImages
from cxr.data.readers import make_chest_xray_samples, make_image_folder_samples
from cxr.imaging.preprocess import Preprocess
from cxr.imaging.resize import resize

DATASETS = Path(__file__).resolve().parents[4] / "shared" / "datasets"
NEEDED = [DATASETS / "chest_xray", DATASETS / "COVID-19_Radiography_Dataset"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(folder.is_dir() for folder in NEEDED), reason="the public datasets are not in ../shared/datasets"
    ),
]


def described(samples, index):
    return samples.assign(content_hash=index.describe(samples["image_path"].tolist())["content_hash"].to_numpy())


def correlation(one, other):
    films = (cv2.imread(path, cv2.IMREAD_GRAYSCALE).astype("float32") for path in (one, other))
    first, second = (resize(film, (32, 32)) for film in films)
    first, second = first - first.mean(), second - second.mean()
    return float((first * second).sum() / ((first**2).sum() * (second**2).sum()) ** 0.5)


def test_normals_of_one_set_that_are_images_of_another(tmp_path):
    """248 of the Radiography normals are chest_xray training images in another encoding, and no other is."""
    index = FileIndex(tmp_path / "files.sqlite")
    children = described(make_chest_xray_samples(NEEDED[0]), index)
    others = described(make_image_folder_samples(NEEDED[1]), index)
    both = [[*children[column], *others[column]] for column in ("image_path", "content_hash")]
    images = ImageCache(tmp_path / "images", Preprocess())
    assert images.build(*both) == {}
    leaks = find_external_leaks(children, others, SimilarImages(tmp_path / "leaks", images).find(*both))
    assert set(leaks["kind"]) == {"near"}
    assert leaks["sample_b"].nunique() == 248
    assert leaks["sample_b"].str.startswith("Normal/").all()
    path_a = leaks["sample_a"].map(children.set_index("sample_id")["image_path"])
    path_b = leaks["sample_b"].map(others.set_index("sample_id")["image_path"])
    assert min(map(correlation, path_a, path_b)) > 0.998
