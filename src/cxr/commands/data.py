"""What `cxr data report`, `leaks` and `audit` do: a dataset named in the words of train.py -> files that describe it.

Lists and pages made here name files: they are for the owner of the data.
"""

import logging
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import pandas as pd

from cxr.compose import DataSource, open_data
from cxr.data.labelled import LabelledSamples
from cxr.data.owner_lists import guard_formulas
from cxr.data.samples import label_columns, target_names
from cxr.data.splits import SPLIT_FILE
from cxr.data.views import filter_views
from cxr.errors import ConfigError, DataError
from cxr.evaluation.audit.audit import Audit, audit_cohort, audit_samples, write_audit
from cxr.training.sources import leak_folder, open_images

if TYPE_CHECKING:
    from cxr.data.leaks.similar import Similar

log = logging.getLogger(__name__)


def report(overrides: Sequence[str], out: Path | None) -> tuple[Path, dict[str, Any]]:
    """Describe a dataset as a page and JSON.

    Args:
        overrides: Words as for train.py.
        out: Where to; None for a folder among the logs.

    Returns:
        The page, and what it shows, see `collect`.

    Raises:
        CxrError: The words, the dataset or the folder cannot be used.
    """
    from cxr.data.report.collect import Inputs, collect
    from cxr.data.report.page import write_report

    source = open_data(["data.on_bad_file=skip", *overrides])
    folder = make_folder(source, "report", out)
    dataset, view_filter = label_by_finding(source.dataset), source.config.data.view_filter
    inputs = Inputs(dataset, source.images, source.index, view_filter, source.make_cohort)
    found, thumbnails = collect(inputs)
    command = shlex.join(["cxr", "data", "report", *overrides])
    return write_report(folder, source.name, command, found, thumbnails), found


def find_shared(overrides: Sequence[str], against: str | None, out: Path | None) -> tuple[dict[str, int], Path]:
    """List the images that a dataset holds more than once and what its own parts share, or what it shares with another.

    Args:
        overrides: Words as for train.py.
        against: The other dataset, in such words.
        out: Where to; None for a folder among the logs.

    Returns:
        Kind of likeness -> number of pairs, and the table ``pairs.csv``.

    Raises:
        CxrError: The words, a dataset or the folder cannot be used.
    """
    from cxr.data.leaks.gate import add_paths, find_external_leaks
    from cxr.data.leaks.similar import SimilarImages

    source = open_data(overrides)
    other_source = None if against is None else open_data(split_words(against))
    folder = make_folder(source, "leaks", out)
    samples = name_parts(source.decode())
    other = None if other_source is None else other_source.decode(source.images)
    everything = samples if other is None else pd.concat([samples, other])
    search = SimilarImages(leak_folder(source.config), source.images)
    similar = search.find(everything["image_path"].tolist(), everything["content_hash"].tolist())
    pairs = find_own_pairs(samples, similar) if other is None else find_external_leaks(samples, other, similar)
    pairs = add_paths(pairs, samples, samples if other is None else other)
    guard_formulas(pairs).to_csv(folder / "pairs.csv", index=False)
    return {str(kind): int(count) for kind, count in pairs["kind"].value_counts().items()}, folder / "pairs.csv"


def find_own_pairs(samples: pd.DataFrame, similar: "Similar") -> pd.DataFrame:
    """Repeats within a table, then what its given parts share beside images: studies, patients, links through others.

    Args:
        samples: Of `name_parts`.
        similar: What `SimilarImages.find` found.
    """
    from cxr.data.leaks.gate import IMAGE_KEYS, add_pixel_hashes, find_leaks, find_repeats

    samples = add_pixel_hashes(samples, similar)
    between_parts = find_leaks(samples, similar)
    beside_images = between_parts[~between_parts["kind"].isin([*IMAGE_KEYS, "near"])]
    return pd.concat([find_repeats(samples, similar), beside_images], ignore_index=True)


def audit(overrides: Sequence[str], bundle: Path | None, out: Path | None) -> tuple[Audit, Path]:
    """Measure how much of the label can be had without the disease.

    Args:
        overrides: Words as for train.py.
        bundle: A net to audit too. Its run's split is used unless `overrides` name another.
        out: Where to; None for a folder among the logs.

    Returns:
        The audit, and its file.

    Raises:
        CxrError: The words, the dataset or the folder cannot be used, or the dataset has other classes than the bundle.
    """
    source = open_data([*split_of_run(bundle), *overrides])
    require_classes(source)
    folder = make_folder(source, "audit", out)
    if bundle is None and not has_files(source.dataset.samples):
        return (result := audit_lists(source)), write_audit(result, folder)
    if bundle is None:
        cohort, images, net = source.make_cohort(), source.images, None
    else:
        from cxr.inference.bundle import load_net

        predictor = load_net(bundle)
        images = open_images(source.config, predictor.preprocess)
        cohort, net = source.make_cohort(images), predictor.embed_stored
        if predictor.class_names != cohort.class_names:
            raise DataError(
                f"expected the bundle's classes {predictor.class_names}, got {cohort.class_names}; set data.classes so"
            )
    result = audit_cohort(cohort, images, net, seed=source.config.seed)
    return result, write_audit(result, folder)


def has_files(samples: pd.DataFrame) -> bool:
    """Whether any of the samples' files is there."""
    return any(map(os.path.exists, samples["image_path"]))


def audit_lists(source: DataSource) -> Audit:
    """Audit source and metadata of a dataset of which only the lists are there; the test part is the official one.

    Raises:
        DataError: A split is asked for, which takes the files.
    """
    samples, data = source.dataset.samples, source.config.data
    if data.split_file is not None:
        raise DataError(
            f"expected files to take the parts of data.split_file={data.split_file}, but none of {len(samples)} is "
            "there; leave data.split_file out, or give the folder with the files"
        )
    log.warning("none of the %d files is there: the lists alone are audited, without any image", len(samples))
    samples, _ = filter_views(samples, data.view_filter)
    return audit_samples(samples, source.dataset.class_names, seed=source.config.seed)


def split_of_run(bundle: Path | None) -> list[str]:
    """The split that the run of a bundle was trained with: its test part is what the net has not seen."""
    split = None if bundle is None else bundle.absolute().parent / SPLIT_FILE
    return [f"data.split_file='{split}'"] if split is not None and split.is_file() else []


def split_words(against: str) -> list[str]:
    """The words of `--against`.

    Raises:
        ConfigError: There are none, or a quote is not closed.
    """
    try:
        words = shlex.split(against)
    except ValueError:
        words = []
    if not words:
        raise ConfigError(
            f"expected --against to name a dataset, such as 'data=radiography data.root=PATH', but got {against!r}"
        )
    return words


def name_parts(samples: pd.DataFrame) -> pd.DataFrame:
    """The samples with the dataset's own parts as `split`, 'dataset' where it has none."""
    own = samples["split"] if "split" in samples else pd.Series(None, index=samples.index, dtype="object")
    return samples.assign(split=own.fillna("dataset"))


def label_by_finding(dataset: LabelledSamples) -> LabelledSamples:
    """The dataset with one class for each image: where images have several targets, the rarest that is positive."""
    if not target_names(dataset.samples):
        return dataset
    labels, findings = pd.factorize(dataset.samples["finding"], sort=True)
    samples = dataset.samples.drop(columns=label_columns(dataset.samples)).assign(label=labels)
    return LabelledSamples(samples, [str(finding) for finding in findings], dataset.report)


def require_classes(source: DataSource) -> None:
    """Raise DataError where images have several targets: an audit is about one class per image."""
    if targets := target_names(source.dataset.samples):
        raise DataError(
            f"expected one class for each image, got the targets {', '.join(targets)}; take one of them as the class, "
            "with a table that states it in every row: "
            f"data.targets=[] data.columns.finding={targets[0]}"
        )


def make_folder(source: DataSource, name: str, out: Path | None) -> Path:
    """`out`, or a folder named by command and dataset among the logs; made before the work that it is for.

    Raises:
        DataError: It cannot be made or written to.
    """
    folder = Path(source.config.paths.log_dir) / f"data_{name}" / source.name if out is None else out
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise DataError(
            f"expected a folder to write to, but {folder} is none ({error.strerror}); choose another --out"
        ) from error
