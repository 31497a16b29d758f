"""Which images of a cohort are frontal radiographs, and which one of each study to keep.

Knows nothing of pixels and labels: it reads header columns only. Not guaranteed: a wrong header is believed.
"""

import pandas as pd

from cxr.data.view_words import UNKNOWN, view_of_code, view_of_description, view_of_orientation
from cxr.errors import ConfigError

VIEW_MODES = ("none", "frontal", "single_image_study")
OWN_FILTER = "view_filter"
"""Column with the mode of each row, where a table has several: applied before that of the whole table."""

_RANK = {"pa": 0, "ap": 1, "frontal": 2, "unknown": 3}  # "other" is never kept


def filter_views(samples: pd.DataFrame, mode: str) -> tuple[pd.DataFrame, dict[str, int]]:
    """Keep the images that a frontal classifier should see.

    'frontal': a view is known from ViewPosition, else from SeriesDescription (where it names one kind of view only),
    else from PatientOrientation. Lateral, oblique and decubitus images are dropped. An image of unknown view counts as
    frontal if it is the only image of its study that is not one of those; of several, none can be told from a lateral,
    so they are dropped. Of the frontal images of a study one is kept: PA before AP before a direction unknown, then the
    latest acquired, then the first by `sample_id`.
    'single_image_study': drop every study with more than one image, whatever its views.
    'none': keep all.

    Args:
        samples: Table with `sample_id` and, where known, `study_id`, `view_position`, `series_description`,
            `patient_orientation` and `acquired` (sorts by time). An image without a study is a study of its own. Rows
            with a mode of their own (`OWN_FILTER`) are filtered by it first.
        mode: One of the three.

    Returns:
        The kept rows, in order, and reason -> number of images; the reasons begin with 'kept' or 'dropped'.

    Raises:
        ConfigError: Unknown mode.
    """
    reasons = judge_views(samples, mode)
    counts = {str(reason): int(count) for reason, count in reasons.value_counts().sort_index().items()}
    return samples[reasons.str.startswith("kept")], counts


def judge_views(samples: pd.DataFrame, mode: str) -> pd.Series:
    """The reason why `filter_views` keeps or drops each row."""
    require_view_mode(mode, "view_filter")
    if OWN_FILTER not in samples:
        return _judge(samples, mode)
    reasons = pd.Series(None, index=samples.index, dtype=object)
    for own, rows in samples.groupby(OWN_FILTER):
        reasons[rows.index] = _judge(rows, str(own))
    left = reasons.str.startswith("kept")
    if mode != "none":
        reasons[left] = _judge(samples[left], mode)
    return reasons


def require_view_mode(mode: str, key: str) -> None:
    """Raise ConfigError unless the setting `key` is one of the modes."""
    if mode not in VIEW_MODES:
        raise ConfigError(f"expected {key} to be one of {', '.join(VIEW_MODES)}, but got {mode!r}")


def _judge(samples: pd.DataFrame, mode: str) -> pd.Series:
    if mode == "none":
        return pd.Series("kept without a filter", index=samples.index, dtype=object)
    return _judge_by_count(samples) if mode == "single_image_study" else _judge_frontal(samples)


def find_views(samples: pd.DataFrame) -> pd.Series:
    """Return for each row what `cxr.data.view_words.find_view` says of its columns."""
    views = pd.Series(UNKNOWN, index=samples.index)
    for column, judge in (
        ("view_position", view_of_code),
        ("series_description", view_of_description),
        ("patient_orientation", view_of_orientation),
    ):
        texts = _column(samples, column)[views == UNKNOWN]
        named = {text: judge(str(text)) for text in texts.dropna().unique()}
        views[texts.index] = texts.map(named).astype(object).fillna(UNKNOWN)
    return views


def _judge_by_count(samples: pd.DataFrame) -> pd.Series:
    single = ~_studies(samples).duplicated(keep=False)
    return single.map({True: "kept: only image of its study", False: "dropped: study with several images"})


def _judge_frontal(samples: pd.DataFrame) -> pd.Series:
    views, studies = find_views(samples), _studies(samples)
    table = pd.DataFrame({"study": studies, "rank": views.map(_RANK), "sample_id": samples["sample_id"]})
    table["acquired"] = _column(samples, "acquired").fillna("").astype("str")
    candidates = table[views != "other"]
    undecided = (candidates["rank"] == _RANK["unknown"]) & candidates["study"].duplicated(keep=False)
    order = candidates[~undecided].sort_values(["rank", "acquired", "sample_id"], ascending=[True, False, True])
    best = order.drop_duplicates("study").index
    reasons = pd.Series("dropped: another frontal image of the study is kept", index=samples.index)
    reasons[views == "other"] = "dropped: not a frontal view"
    reasons[undecided[undecided].index] = "dropped: view unknown and not the only candidate of its study"
    named = {
        "pa": "kept: PA",
        "ap": "kept: AP",
        "frontal": "kept: frontal, direction unknown",
        "unknown": "kept: view unknown, the only candidate of its study",
    }
    reasons[best] = views[best].map(named)
    return reasons


def _studies(samples: pd.DataFrame) -> pd.Series:
    """Study of each row; a row without one gets one that no other row has."""
    return _column(samples, "study_id").fillna("without a study: " + samples["sample_id"])


def _column(samples: pd.DataFrame, name: str) -> pd.Series:
    return samples[name] if name in samples else pd.Series(None, index=samples.index, dtype=object)
