"""The report as files: numbers into ``metrics.json``, figures, documents, and one page that stands alone.

Knows nothing of how the numbers are made.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cxr.errors import DataError
from cxr.evaluation.drawing import drawable_names
from cxr.evaluation.figures import write_figure
from cxr.evaluation.report.collect import Options, Report, collect
from cxr.evaluation.report.documents import (
    BLANK,
    RESEARCH_ONLY,
    SYNTHETIC,
    Facts,
    Section,
    make_claim,
    make_datasheet,
    make_model_card,
    to_markdown,
)
from cxr.evaluation.report.figures import draw_figures
from cxr.evaluation.report.material import Material
from cxr.pages import embed_picture, render

GALLERY = "gallery"
GALLERY_KINDS = {
    "errors": "Most certain errors",
    "uncertain": "Most uncertain",
    "correct": "Most certain, and correct",
}
PAGE_FILE, NUMBERS_FILE = "report.html", "metrics.json"
BASELINES = ("auroc", "average_precision", "balanced_accuracy", "accuracy")
_TEMPLATE = Path(__file__).with_name("page.html")


def write_report(material: Material, folder: Path, options: Options, command: str = "") -> Path:
    """Measure, draw and write everything.

    Args:
        material: What the report is of.
        folder: Where; ``metrics.json`` there keeps what else it holds.
        options: What a reader may choose.
        command: The command line, shown on the page.

    Returns:
        The page.

    Raises:
        DataError: A table cannot be measured, or the folder cannot be written.
    """
    report = collect(material, options) | {"command": command}
    facts = gather_facts(material, report)
    documents = {
        "model_card": ("Model card", make_model_card(facts)),
        "datasheet": ("Datasheet of the data", make_datasheet(facts)),
        "claim": ("CLAIM 2024 checklist", make_claim(facts)),
    }
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        figures = _write_figures(material, report, options.rule, folder)
        for key, (title, sections) in documents.items():
            (folder / f"{key}.md").write_text(to_markdown(f"{title}: {material.name}", sections), encoding="utf-8")
        _write_numbers(report, folder / NUMBERS_FILE)
        page = make_page(report, figures, [(key, *document) for key, document in documents.items()])
        (folder / PAGE_FILE).write_text(page, encoding="utf-8")
    except OSError as error:
        raise DataError(f"expected to write the report to {folder}, but got: {error}; choose another --out") from error
    return folder / PAGE_FILE


def make_page(report: Report, figures: Mapping[str, str], documents: Sequence[tuple[str, str, list[Section]]]) -> str:
    """The report as one HTML document without anything to load.

    Args:
        report: Of `collect`, with `command`.
        figures: Name -> ``data:`` address.
        documents: (key, title, sections) of each.
    """
    return render(
        _TEMPLATE,
        title=f"Evaluation: {report['run']}",
        report=report,
        figures=figures,
        documents=documents,
        cards=list_cards(report),
        gallery=list_gallery(figures),
        contents=list_contents(report, figures, documents),
        baseline_names=BASELINES,
        drawable_names=drawable_names,
        least=report["least"],
        blank=BLANK,
        research_only=RESEARCH_ONLY,
        synthetic=SYNTHETIC,
    )


def gather_facts(material: Material, report: Report) -> Facts:
    """What the documents may say."""
    columns = {row["column"] for question in report["questions"] for row in question["parts"][-1]["subgroups"]}
    return Facts(
        run=material.name,
        made=report["made"],
        config=material.config,
        data=material.data,
        bundle=material.bundle,
        versions=material.versions,
        results=[sentence for question in report["questions"] for sentence in tell_results(question)],
        subgroups=sorted(columns),
        synthetic=report["synthetic"],
    )


def tell_results(question: Report) -> list[str]:
    """The headline numbers of the last part in sentences."""
    part = question["parts"][-1]
    what = f"{question['name']}: " if question["name"] else ""
    size = f"{part['images']:,} images" + (f" of {part['patients']:,} patients" if part["patients"] else "")
    told = [
        f"{name.replace('_', ' ').replace('auroc', 'AUROC')} {_range(part['metrics'][name])}"
        for name in ("auroc", "balanced_accuracy")
        if part["metrics"][name]["value"] is not None
    ]
    sentences = [f"{what}{', '.join(told)} on {part['name']} ({size})."] if told else []
    of_class = len(question["class_names"]) > 2
    return sentences + [
        f"{what}At the operating point{' of ' + point['class'] if of_class else ''} ({point['title']} on validation): "
        f"sensitivity {_range(point['sensitivity'])}, specificity {_range(point['specificity'])} on {part['name']}."
        for point in question["operating_points"]
        if point["chosen"]
    ]


def list_cards(report: Report) -> list[dict[str, str]]:
    """The few numbers at the top of the page."""
    question = report["questions"][0]
    part = question["parts"][-1]
    where = f"{question['name']}, {part['name']}" if question["name"] else part["name"]
    cards = [_card(part["metrics"]["auroc"], f"AUROC, {where}")]
    for point in question["operating_points"]:
        if point["chosen"] and len(question["class_names"]) == 2:
            cards += [
                _card(point["sensitivity"], f"sensitivity at the operating point, {where}"),
                _card(point["specificity"], f"specificity at the operating point, {where}"),
            ]
    cards.append({"value": f"{part['images']:,}", "text": f"images in {where}"})
    if report["openings"]:
        cards.append({"value": f"{report['openings']:,}", "text": "evaluations of this test part so far"})
    return cards


def list_contents(
    report: Report, figures: Mapping[str, str], documents: Sequence[tuple[str, str, list[Section]]]
) -> list[tuple[str, str]]:
    """Anchor and text of each section that is there; of several targets the first."""
    question = report["questions"][0]
    part, key = question["parts"][-1], question["key"]
    there = {
        "numbers": ("Discrimination", True),
        "classes": ("Classes", True),
        "calibration": ("Calibration", True),
        "operating": ("Operating points", bool(question["operating_points"])),
        "selective": ("Abstention", part["selective"] is not None),
        "baselines": ("Baselines", bool(part["baselines"])),
        "subgroups": ("Groups", bool(part["subgroups"])),
    }
    contents = [(f"{key}{name}", text) for name, (text, shown) in there.items() if shown]
    contents += [("gallery", "Pictures")] if list_gallery(figures) else []
    contents += [("localisation", "Saliency")] if report["explanations"] else []
    contents += [("training", "Training")] if "learning_curves" in figures else []
    return contents + [(name, title) for name, title, _ in documents]


def list_gallery(figures: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """Heading and names of the pictures of each kind that there are."""
    kinds = {kind: [name for name in figures if name.startswith(f"{GALLERY}/{kind}")] for kind in GALLERY_KINDS}
    return [(GALLERY_KINDS[kind], names) for kind, names in kinds.items() if names]


def _card(interval: Mapping[str, Any], text: str) -> dict[str, str]:
    value = interval["value"]
    if value is None:
        return {"value": "–", "text": text}
    has_range = interval.get("low") is not None
    return {"value": f"{value:.3f}", "text": f"{text} ({_ends(interval)})" if has_range else text}


def _range(interval: Mapping[str, Any]) -> str:
    value = interval["value"]
    if value is None:
        return "not defined"
    return f"{value:.3f}" + (f" ({_ends(interval)})" if interval.get("low") is not None else "")


def _ends(interval: Mapping[str, Any]) -> str:
    return f"{interval['low']:.3f} to {interval['high']:.3f}"


def _write_figures(material: Material, report: Report, rule: str, folder: Path) -> dict[str, str]:
    """The figures as files; return them, and the gallery, as ``data:`` addresses."""
    addresses = {f"{GALLERY}/{path.stem}": embed_picture(path) for path in material.gallery}
    for name, figure in draw_figures(material, report, rule):
        path = folder / "figures" / f"{name}.png"
        write_figure(figure, path)
        addresses[name] = embed_picture(path)
    return addresses


def _write_numbers(report: Report, path: Path) -> None:
    """Add the report to metrics.json; NaN as null, the file whole or not at all."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        text = json.dumps(_finite(known | {"evaluation": report}), indent=2, ensure_ascii=False, allow_nan=False)
        part.write_text(text + "\n", encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _finite(values: Any) -> Any:
    """The same nested values with None for each number that JSON lacks."""
    if isinstance(values, dict):
        return {key: _finite(value) for key, value in values.items()}
    if isinstance(values, list):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values
