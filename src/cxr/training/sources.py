"""Config -> the dataset of a run: its labelled samples, its store of images and its cohort.

Imports neither torch nor Lightning, so that looking at data starts at once.
"""

from pathlib import Path

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from cxr.data.cache import ImageCache
from cxr.data.cohort import Cohort, CohortSettings, gather_samples, make_cohort
from cxr.data.file_index import FileIndex
from cxr.data.identity import load_salt
from cxr.data.image_store import ImageStore, UncachedImages
from cxr.data.labelled import LabelledSamples, read_dataset, tell_one_class
from cxr.data.shards import ShardReader
from cxr.data.splits import SPLIT_FILE, read_split
from cxr.errors import ConfigError, DataError
from cxr.imaging.preprocess import Preprocess
from cxr.training.building import build, plain


def open_dataset(config: DictConfig) -> LabelledSamples:
    """The labelled samples; no file is looked into.

    Raises:
        CxrError: The dataset is not there, or its table is not sound.
    """
    classes = None if config.data.classes is None else plain(config.data.classes)
    dataset = read_dataset(build(config.data.reader, "data.reader"), classes)
    one_class = config.data.get("one_class")
    return dataset if one_class is None else tell_one_class(dataset, one_class)


def open_images(config: DictConfig, preprocess: Preprocess) -> ImageStore:
    """The store of decoded images: on disk unless ``data.cache=false``, filled from ``data.shards`` where it is given.

    Raises:
        ConfigError: Shards are given without a cache that they could fill.
    """
    shards = config.data.get("shards")
    if config.data.cache:
        max_bytes = None if config.data.cache_max_gb is None else int(config.data.cache_max_gb * 1e9)
        source = None if shards is None else ShardReader(shards, preprocess)
        return ImageCache(Path(config.paths.cache_dir) / "images", preprocess, max_bytes=max_bytes, source=source)
    if shards is not None:
        raise ConfigError("expected data.cache=true with data.shards, which fill the cache, but got data.cache=false")
    return UncachedImages(preprocess)


def open_index(config: DictConfig) -> FileIndex:
    """What is known of each file, kept beside the images."""
    return FileIndex(Path(config.paths.cache_dir) / "files.sqlite")


def leak_folder(config: DictConfig) -> Path:
    """Where the leak gate keeps what it knows of images, and where lists that name files go."""
    return Path(config.paths.cache_dir) / "leaks"


def build_cohort(config: DictConfig, dataset: LabelledSamples, images: ImageStore) -> Cohort:
    """Check, filter, decode and split the dataset; a resumed run keeps the split it was started with."""
    salt = load_salt(Path(config.paths.cache_dir))
    return make_cohort(dataset, cohort_settings(config), images, open_index(config), leak_folder(config), salt)


def read_cohort(config: DictConfig) -> Cohort:
    """The cohort of the run that the config describes, without its net.

    Raises:
        CxrError: The data cannot be trained on.
    """
    return build_cohort(config, open_dataset(config), open_images(config, stored_preprocess(config)))


def read_pool(config: DictConfig) -> tuple[pd.DataFrame, list[str]]:
    """The samples that a run would divide, with their groups, and the class names.

    The leak gate stops nothing here: what is linked has one group, and a pool is divided anew by group.

    Raises:
        CxrError: The data cannot be used.
    """
    dataset, salt = open_dataset(config), load_salt(Path(config.paths.cache_dir))
    images, index = open_images(config, stored_preprocess(config)), open_index(config)
    samples = gather_samples(dataset, cohort_settings(config), images, index, leak_folder(config), salt)
    return samples, dataset.class_names


def stored_preprocess(config: DictConfig) -> Preprocess:
    """The preprocessing as far as stored images depend on it: what a net completes comes after."""
    return Preprocess.from_dict(plain(config.preprocess))


def cohort_settings(config: DictConfig) -> CohortSettings:
    """What the run takes of its dataset."""
    data = config.data
    return CohortSettings(
        view_filter=data.view_filter,
        limit=data.limit,
        balance_all=config.sampler.balance_all,
        fractions=tuple(data.fractions),
        split_file=choose_split_file(config),
        seed=config.seed,
        on_bad_file=data.on_bad_file,
        leak_gate="warn" if resumes(config) and data.leak_gate == "stop" else data.leak_gate,  # it has passed the gate
        avoid=None if data.avoid is None else read_avoided(Path(data.avoid), load_salt(Path(config.paths.cache_dir))),
    )


def read_avoided(folder: Path, salt: str) -> pd.DataFrame:
    """The samples that a run, or any run of a plan, validated and tested, and the official test part of their dataset.

    Of folds the first are all samples outside that part. Of it a run or fold need not have taken any.

    Args:
        folder: The run folder, or the folder of a plan with its runs.
        salt: With which the ids in a split may be hashed.

    Raises:
        DataError: It is no such folder, or a run's dataset is not as it was.
    """
    runs = sorted(split.parent for split in folder.glob(f"*/{SPLIT_FILE}")) or [folder]
    held_out = pd.concat([_read_held_out(run, salt) for run in runs], ignore_index=True)
    return held_out.drop_duplicates("image_path", ignore_index=True)


def read_learnt(run: Path, salt: str) -> pd.DataFrame:
    """The samples that a run's net was trained on or chosen by, those of the runs that it started from included.

    Args:
        run: The run folder.
        salt: With which the ids in a split may be hashed.

    Raises:
        CxrError: It is no run folder, or a run's dataset is not as it was.
    """
    samples, parts = _read_divided(run, salt, "the folder of a bundle")
    learnt = samples[parts.isin(["train", "val"])]
    source = OmegaConf.select(OmegaConf.load(run / "config.yaml"), "transfer.init_from")
    if source is None:
        return learnt
    earlier = Path(source).parent if Path(source).name == "bundle" else Path(source)
    return pd.concat([learnt, read_learnt(earlier, salt)], ignore_index=True)


def _read_held_out(run: Path, salt: str) -> pd.DataFrame:
    """Those of one run, as its config reads them and its split divides them, or their dataset itself."""
    samples, parts = _read_divided(run, salt, "data.avoid")
    held_out = parts.isin(["val", "test"])
    return samples[held_out | (samples["split"] == "test") if "split" in samples else held_out]


def _read_divided(run: Path, salt: str, key: str) -> tuple[pd.DataFrame, pd.Series]:
    """All samples of a run's dataset, and the part of each, missing where the run did not take it."""
    absent = [name for name in ("config.yaml", SPLIT_FILE) if not (run / name).exists()]
    if absent:
        raise DataError(f"{key} must be the folder of a run, but {run} has no {absent[0]}; train that run first")
    config = OmegaConf.load(run / "config.yaml")
    assert isinstance(config, DictConfig)
    samples = open_dataset(config).samples
    return samples, read_split(samples, run / SPLIT_FILE, salt=salt).reindex(samples.index)


def choose_split_file(config: DictConfig) -> Path | None:
    """The split of the run that ``ckpt_path`` continues, else ``data.split_file``, else None for a new split."""
    if resumes(config):
        return own_split(config)
    return None if config.data.split_file is None else Path(config.data.split_file)


def resumes(config: DictConfig) -> bool:
    """Whether the run continues one that has made its split."""
    return config.ckpt_path is not None and own_split(config).exists()


def own_split(config: DictConfig) -> Path:
    """Where the run keeps its split."""
    return Path(config.paths.output_dir) / SPLIT_FILE


def id_salt(config: DictConfig) -> str | None:
    """The salt of hashed ids, or None where ids are told as they are."""
    return load_salt(Path(config.paths.cache_dir)) if config.hash_ids else None
