"""Every number of a report, as plain values. Knows nothing of figures, pages or where the tables come from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.errors import DataError
from cxr.evaluation.calibration import of_top_label
from cxr.evaluation.ledger import count_openings
from cxr.evaluation.metrics import PER_CLASS
from cxr.evaluation.operating_point import (
    OperatingPoint,
    parse_rule,
    predictive_values,
)
from cxr.evaluation.predictions import SUBGROUPS, SUM_TOLERANCE, aggregate_by_study, has_studies, target_and_probs
from cxr.evaluation.report.decisions import (
    RULES,
    VALIDATION,
    WANTED_RISK,
    choose_abstention,
    choose_points,
    fitted_scaling,
    positive_classes,
    rule_of,
)
from cxr.evaluation.report.material import Material, Question, ledger_path
from cxr.evaluation.selective import area_under_risk_coverage
from cxr.evaluation.statistics.bootstrap import (
    Draws,
    bootstrap_metrics,
    bootstrap_study_map,
    interval_of_draws,
    metric_intervals,
    patients_behind,
    proportion_interval,
    resample_metrics,
    resample_share,
)
from cxr.evaluation.statistics.calibration_intervals import bootstrap_calibration
from cxr.evaluation.statistics.intervals import Interval
from cxr.evaluation.statistics.resampling import patient_groups
from cxr.evaluation.statistics.subgroups import UNDERDIAGNOSIS, measure_subgroups
from cxr.scaling import UNSCALED, Scaling

Report = dict[str, Any]

HEADLINES = (
    "auroc", "average_precision", "balanced_accuracy", "sensitivity", "specificity", "accuracy", "f1_macro", "f1_micro",
    "precision_macro", "mcc", "cohen_kappa",
)  # fmt: skip
STUDY_HEADLINES = ("auroc", "average_precision", "balanced_accuracy", "accuracy", "study_map")
CALIBRATION = ("brier", "log_loss", "ece", "calibration_slope", "calibration_intercept")
CALLS = ("sensitivity", "specificity", "ppv", "npv")
ONE_AGAINST_REST = ["rest", "class"]
GROUP_METRIC = "auroc"


@dataclass(frozen=True)
class Options:
    """What a reader of the report may choose.

    Attributes:
        rule: How the operating point is chosen on validation, see `parse_rule`.
        prevalence: At which PPV and NPV are told; None is that of the part.
        draws: Of the bootstrap, 1,000 or more.
        seed: Of the draws.
        subgroups: Columns whose values are measured apart.
        least: Patients that a group needs to be shown.

    Raises:
        ConfigError: The rule is none.
        DataError: The prevalence is not between 0 and 1.
    """

    rule: str = RULES[0]
    prevalence: float | None = None
    draws: int = 1000
    seed: int = 0
    subgroups: Sequence[str] = SUBGROUPS
    least: int = 20

    def __post_init__(self) -> None:
        parse_rule(self.rule)
        if self.prevalence is not None and not 0 < self.prevalence < 1:
            raise DataError(f"expected a prevalence over 0 and under 1, got {self.prevalence}; 0.1 is 10%")


def collect(material: Material, options: Options) -> Report:
    """Measure everything.

    Returns:
        Plain values for JSON: `run, made, synthetic, draws, least, kept, best, net, openings, omitted,
        explanations` and `questions`, each with its tables of numbers, where an interval is a mapping of value, low,
        high, k and n. `kept` is whether the bundle holds the operating points that are marked.

    Raises:
        DataError: A table cannot be measured.
    """
    omitted: list[str] = []
    scalings = [fitted_scaling(material, question) for question in material.questions]
    questions = [
        _measure_question(question, scaling, options, omitted)
        for question, scaling in zip(material.questions, scalings, strict=True)
    ]
    return {
        "run": material.name,
        "made": f"{datetime.now():%Y-%m-%d %H:%M}",
        "synthetic": "phantom" in str(material.config.get("data", {}).get("reader", {}).get("_target_", "")),
        "draws": options.draws,
        "least": options.least,
        "kept": bool(material.bundle.get("operating_point")) and options.rule == rule_of(material),
        "best": _describe_best(material),
        "net": _describe_net(material),
        "openings": _count_openings(material, omitted),
        "questions": questions,
        "explanations": list(material.explanations),
        "omitted": list(dict.fromkeys(omitted)),
    }


def name_probs(question: Question, part: str, scaling: Scaling | None) -> dict[str, NDArray[np.float64]]:
    """Name -> (N, K) probabilities: of the logits before and after the scaling, and the table's if others."""
    _, logits = target_and_probs(question.parts[part], "logit")
    _, probs = target_and_probs(question.parts[part])
    named = {"as the net gives them": UNSCALED.to_probs(logits)}
    if scaling is not None:
        named["calibrated on validation"] = scaling.to_probs(logits)
    if not any(np.allclose(probs, known, rtol=0, atol=SUM_TOLERANCE) for known in named.values()):
        named["as the table gives them"] = probs
    return named


def _measure_question(question: Question, scaling: Scaling | None, options: Options, omitted: list[str]) -> Report:
    omitted += _tell_omissions(question, scaling)
    parts = [_measure_part(question, part, scaling, options, omitted) for part in question.parts]
    return {
        "name": question.name,
        "key": f"{question.name}_" if question.name else "",
        "class_names": question.class_names,
        "scaling": None if scaling is None else scaling.to_dict(),
        "prevalence": options.prevalence,
        "headlines": HEADLINES,
        "study_headlines": STUDY_HEADLINES,
        "per_class": list(PER_CLASS),
        "operating_points": list(_apply_points(question, options)),
        "calibration": CALIBRATION if len(question.class_names) == 2 else CALIBRATION[:3],
        "group_metric": GROUP_METRIC,
        "parts": parts,
    }


def _tell_omissions(question: Question, scaling: Scaling | None) -> Iterator[str]:
    """What the tables of a question do not allow to say."""
    if VALIDATION not in question.parts:
        yield "Without a validation table no probabilities are calibrated and no operating point chosen."
    elif scaling is None:
        yield "The probabilities are not calibrated: validation is separated perfectly, or no better than chance."
    for part, table in question.parts.items():
        unnamed = int(table["patient_id"].isna().sum())
        if unnamed:
            yield f"{unnamed:,} of {len(table):,} images of {part} name no patient: each counts as one of its own."
        if table["study_id"].dropna().duplicated().any() and not has_studies(table):
            yield f"Images of one study differ in label or patient in {part}: nothing is told per study."
        absent = [name for number, name in enumerate(question.class_names) if not (table["target"] == number).any()]
        if absent:
            yield f"{part} has no image of {', '.join(absent)}: what needs one is not defined there."


def _measure_part(
    question: Question, part: str, scaling: Scaling | None, options: Options, omitted: list[str]
) -> Report:
    table = question.parts[part]
    target, _ = target_and_probs(table)
    last = part == list(question.parts)[-1]
    return {
        "name": part,
        "stem": f"{part}_{question.name}" if question.name else part,
        "images": len(table),
        "patients": int(table["patient_id"].nunique()) if table["patient_id"].notna().any() else None,
        "prevalence": float((target == 1).mean()) if len(question.class_names) == 2 else None,
        "metrics": _measure(table, question.class_names, options),
        "studies": _measure_studies(table, question.class_names, options),
        "calibration": _measure_calibration(question, part, scaling, options) if part != "train" else [],
        "selective": _measure_selective(question, part, options) if last else None,
        "subgroups": _measure_groups(question, part, options, omitted) if last else [],
        "baselines": _measure_baselines(question, part, options) if last else [],
    }


def _measure(table: pd.DataFrame, class_names: list[str], options: Options) -> dict[str, Report]:
    target, probs = target_and_probs(table)
    found = bootstrap_metrics(target, probs, patient_groups(table), class_names, draws=options.draws, seed=options.seed)
    return {name: plain(interval) for name, interval in found.items()}


def _measure_studies(table: pd.DataFrame, class_names: list[str], options: Options) -> Report | None:
    """The same per study, where a study has several images."""
    if not has_studies(table):
        return None
    studies = aggregate_by_study(table)
    metrics = _measure(studies, class_names, options)
    groups = patient_groups(studies)
    score = bootstrap_study_map(*target_and_probs(studies), groups, class_names, options.draws, options.seed)
    return {"count": len(studies), "metrics": metrics | {"study_map": plain(score)}}


def _measure_calibration(question: Question, part: str, scaling: Scaling | None, options: Options) -> list[Report]:
    table, names = question.parts[part], question.class_names
    (target, _), groups = target_and_probs(table), patient_groups(table)
    found = {
        name: bootstrap_calibration(target, probs, groups, names, options.draws, options.seed)
        for name, probs in name_probs(question, part, scaling).items()
    }
    return [{"name": name, **{key: plain(one) for key, one in numbers.items()}} for name, numbers in found.items()]


def _apply_points(question: Question, options: Options) -> Iterator[Report]:
    """Every threshold from validation, and what it gives on the last part: class by class, in each rule by rule."""
    rules = list(dict.fromkeys((options.rule, *RULES)))
    chosen = {rule: choose_points(question, rule) for rule in rules}
    for k in positive_classes(question.class_names):
        name = question.class_names[k]
        for rule in rules:
            if name in chosen[rule]:
                yield {
                    "title": rule.replace(">=", "≥"),
                    "chosen": rule == options.rule,
                    **_apply_point(question, k, chosen[rule][name], options),
                }


def _apply_point(question: Question, k: int, point: OperatingPoint, options: Options) -> Report:
    """The calls of class `k` against the rest on the last part."""
    table = list(question.parts.values())[-1]
    target, probs = target_and_probs(table)
    positive = (target == k).astype(np.int64)
    called = np.eye(2)[(probs[:, k] >= point.threshold).astype(int)]  # as if each call were certain
    groups = patient_groups(table)
    of_patients = (positive, called, groups, ONE_AGAINST_REST)
    draws = resample_metrics(*of_patients, CALLS, draws=options.draws, seed=options.seed)
    intervals = metric_intervals(*of_patients, draws)
    if options.prevalence is not None:
        behind = patients_behind("ppv", positive, groups, ONE_AGAINST_REST)
        intervals |= _predictive_values(intervals, draws, options.prevalence, behind)
    return {
        "class": point.positive_class,
        "share": float(positive.mean()),
        "threshold": point.threshold,
        "on_validation": point.to_dict(),
        **{name: plain(interval) for name, interval in intervals.items()},
    }


def _predictive_values(
    intervals: Mapping[str, Interval], draws: Draws, prevalence: float, behind: int
) -> dict[str, Interval]:
    """PPV and NPV at a prevalence, each with the interval of the same formula on every draw."""
    pairs = [(intervals["sensitivity"].value, intervals["specificity"].value)]
    pairs += zip(draws["sensitivity"], draws["specificity"], strict=True)
    unknown = (np.nan, np.nan)
    values = np.array([unknown if np.isnan(pair).any() else predictive_values(*pair, prevalence) for pair in pairs])
    return {
        name: interval_of_draws(float(column[0]), column[1:], behind, (0.0, 1.0))
        for name, column in zip(("ppv", "npv"), values.T, strict=True)
    }


def _measure_selective(question: Question, part: str, options: Options) -> Report | None:
    point = choose_abstention(question)
    if point is None:
        return None
    table = question.parts[part]
    target, probs = target_and_probs(table)
    correct, confidence = of_top_label(target, probs)
    answered, groups = confidence >= point.threshold, patient_groups(table)
    shares = {"coverage": (answered, np.full(len(table), True)), "risk": (answered & ~correct, answered)}
    return {
        "wanted_risk": WANTED_RISK,
        "threshold": point.threshold,
        **{name: _measure_share(*rows, groups, options) for name, rows in shares.items()},
        "aurc": area_under_risk_coverage(target, probs),
    }


def _measure_share(
    part: NDArray[np.bool_], whole: NDArray[np.bool_], groups: NDArray[np.int64], options: Options
) -> Report:
    drawn = resample_share(part, whole, groups, options.draws, options.seed)
    return plain(proportion_interval(int(part.sum()), groups[whole], drawn))


def _measure_groups(question: Question, part: str, options: Options, omitted: list[str]) -> list[Report]:
    """AUROC and its gap in each group; of two classes also underdiagnosis, at the operating point that is kept."""
    table = question.parts[part]
    columns = [column for column in options.subgroups if column in table and table[column].nunique() > 1]
    if tuple(options.subgroups) != SUBGROUPS:
        omitted += [_why_no_groups(table, part, column) for column in options.subgroups if column not in columns]
    if not columns:
        return []
    two = len(question.class_names) == 2
    point = choose_points(question, options.rule).get(question.class_names[1]) if two else None
    found = measure_subgroups(
        table, question.class_names, columns,
        [GROUP_METRIC, UNDERDIAGNOSIS] if two else [GROUP_METRIC],
        least=options.least, threshold=None if point is None else point.threshold, draws=options.draws,
        seed=options.seed,
    )  # fmt: skip
    return [_describe_group(rows) for _, rows in found.groupby(["column", "group"], sort=False)]


def _why_no_groups(table: pd.DataFrame, part: str, column: str) -> str:
    if column not in table:
        return f"{part} has no column {column}: no groups by it."
    held = "one value only" if table[column].notna().any() else "nothing"
    return f"The column {column} of {part} holds {held}: no groups by it."


def _describe_group(rows: pd.DataFrame) -> Report:
    """One group of a column: its metric, the gap, and underdiagnosis where it was measured."""
    by_name = {row["metric"]: row for row in rows.to_dict("records")}
    first = by_name[GROUP_METRIC]
    described = {name: first[name] for name in ("column", "group", "images", "patients", "hidden")}
    described["metric"] = _pick(first, "value", "low", "high")
    described["gap"] = _pick(first, "gap", "gap_low", "gap_high")
    described["underdiagnosis"] = None
    if UNDERDIAGNOSIS in by_name:
        missed = by_name[UNDERDIAGNOSIS]
        counts = {name: None if pd.isna(missed[name]) else int(missed[name]) for name in ("k", "n")}
        described["underdiagnosis"] = _pick(missed, "value", "low", "high") | counts
    return described


def _pick(row: Mapping[Any, Any], *names: str) -> Report:
    values = zip(("value", "low", "high"), (row[name] for name in names), strict=True)
    return {name: None if pd.isna(value) else float(value) for name, value in values}


def _measure_baselines(question: Question, part: str, options: Options) -> list[Report]:
    tables = {name: parts[part] for name, parts in question.baselines.items() if part in parts}
    return [{"name": name, "metrics": _measure(table, question.class_names, options)} for name, table in tables.items()]


def _describe_best(material: Material) -> Report | None:
    """Epoch, time and score of the checkpoint that was chosen."""
    history, monitor = material.history, material.config.get("monitor", {})
    if history is None or monitor.get("metric") not in history:
        return None
    epochs = history.groupby("epoch").last()
    scores = epochs[monitor["metric"]]
    best = scores.idxmax() if monitor["mode"] == "max" else scores.idxmin()
    return {
        "monitor": monitor["metric"],
        "score": float(scores[best]),
        "epoch": int(best) + 1,
        "epochs": len(epochs),
        "seconds": float(epochs.loc[:best, "seconds"].sum()) if "seconds" in epochs else None,
    }


def _count_openings(material: Material, omitted: list[str]) -> int | None:
    """How often the test part of a run was evaluated, as far as the ledger tells; None where nobody counts."""
    fingerprint = material.data.get("test_fingerprint")
    if fingerprint is None or "test" not in material.questions[0].parts:
        return None
    counted = count_openings(ledger_path(material.config), fingerprint)
    if counted.omitted:
        omitted.append(f"How often the test part was evaluated is not known: {counted.omitted}.")
        return None
    return counted.openings


def _describe_net(material: Material) -> Report | None:
    if not material.bundle:
        return None
    parameters = material.bundle["extras"].get("parameters", 0)
    return {"name": material.bundle["net"]["name"], "parameters": parameters, "megabytes": material.megabytes}


def plain(interval: Interval) -> Report:
    """An interval as JSON has it: value, low, high, method, k, n; None for what is not defined."""
    values: Mapping[str, Any] = asdict(interval)
    return {name: None if isinstance(value, float) and np.isnan(value) else value for name, value in values.items()}
