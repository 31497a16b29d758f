"""Model card, datasheet and CLAIM checklist of a run: what it knows is filled in, the rest is a blank for a person.

Model cards after Mitchell et al. (2019, doi:10.1145/3287560.3287596), datasheets after Gebru et al. (2021,
doi:10.1145/3458723), CLAIM in its 2024 update (Tejani et al., doi:10.1148/ryai.240300), its items in our words. Knows
nothing of how a document is shown.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

RESEARCH_ONLY = "Research use only; not a medical device."
BLANK = "to be filled in by a person"
SYNTHETIC = "Synthetic images: the numbers say that the machinery works; they are not clinical."


@dataclass(frozen=True)
class Item:
    """One line of a document.

    Attributes:
        label: What is asked.
        text: What the run knows of it; None is a blank for a person.
    """

    label: str
    text: str | None = None


@dataclass(frozen=True)
class Section:
    """A heading and its lines."""

    title: str
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Facts:
    """What a run knows of itself.

    Attributes:
        run: Name of the run.
        made: When it was evaluated, as text.
        config: The resolved config, whose ``data.about`` speaks of a public dataset; empty for tables made elsewhere.
        data: The data report of the run; empty for tables made elsewhere.
        bundle: The description of the bundle; empty where there is none.
        versions: Package -> version.
        results: Sentences with the headline numbers, intervals included.
        subgroups: Columns by which the model was measured.
        synthetic: Whether the images are phantoms.
    """

    run: str
    made: str
    config: Mapping[str, Any]
    data: Mapping[str, Any]
    bundle: Mapping[str, Any]
    versions: Mapping[str, str]
    results: Sequence[str]
    subgroups: Sequence[str]
    synthetic: bool


def make_model_card(facts: Facts) -> list[Section]:
    """The model card."""
    return [
        Section("Model", tuple(_describe_model(facts))),
        Section(
            "Intended use",
            (
                Item("Status", RESEARCH_ONLY),
                Item("Users and setting it is meant for"),
                Item("Uses it is not meant for"),
            ),
        ),
        Section("Training and evaluation data", tuple(_describe_parts(facts))),
        Section(
            "How well it does",
            (
                *(Item("Result", sentence) for sentence in facts.results),
                Item("Measured by group", _listed(facts.subgroups) or "no column of the tables names a group"),
            ),
        ),
        Section(
            "Limits",
            (
                *((Item("Images", SYNTHETIC),) if facts.synthetic else ()),
                *_tell_problems(facts),
                Item("Other hospitals, devices and ages", "not measured unless an external table was evaluated"),
                Item("Ethical considerations"),
                Item("Advice to users"),
            ),
        ),
    ]


def make_datasheet(facts: Facts) -> list[Section]:
    """The datasheet of the dataset."""
    data = facts.data
    return [
        Section(
            "Motivation",
            (Item("Source", _about(facts, "source")), Item("Why and by whom it was made"), Item("Funding")),
        ),
        Section("Composition", (*_describe_composition(data), *_tell_problems(facts))),
        Section(
            "Collection",
            (
                Item("How and when images were taken"),
                Item("How labels were made", _about(facts, "labels")),
                Item("Consent and ethical review"),
            ),
        ),
        Section(
            "Preparation",
            (
                Item("Images", _describe_preprocessing(facts.bundle)),
                Item("Left out", _describe_exclusions(data)),
                Item("Ids", "salted hashes in run folders" if facts.config.get("hash_ids") else None),
            ),
        ),
        Section(
            "Use and maintenance",
            (Item("Licence", _about(facts, "licence")), Item("Who keeps it"), Item("Uses to avoid")),
        ),
    ]


def make_claim(facts: Facts) -> list[Section]:
    """The items of CLAIM 2024, numbered."""
    known = _answer_claim(facts)
    return [
        Section(title, tuple(Item(f"{number}. {label}", known.get(number)) for number, label in items))
        for title, items in CLAIM
    ]


def to_markdown(title: str, sections: Sequence[Section]) -> str:
    """A document as Markdown, blanks marked as such."""
    lines = [f"# {title}", "", f"**{RESEARCH_ONLY}**"]
    for section in sections:
        lines += ["", f"## {section.title}", ""]
        lines += [f"- **{item.label}**: {f'*{BLANK}*' if item.text is None else item.text}" for item in section.items]
    return "\n".join(lines) + "\n"


def _about(facts: Facts, key: str) -> str | None:
    """What the config says of a public dataset; of merged ones each by its name."""
    data = facts.config.get("data", {})
    sources = data.get("sources", {})
    if not sources:
        return _statement(data, key)
    told = {name: _statement(source, key) for name, source in sources.items()}
    if not any(told.values()):
        return None
    return " ".join(f"{name}: {f'({BLANK})' if text is None else text}" for name, text in told.items())


def _statement(dataset: Mapping[str, Any], key: str) -> str | None:
    about = dataset.get("about")
    return about.get(key) if isinstance(about, Mapping) else None


def _tell_problems(facts: Facts) -> Iterator[Item]:
    problems = _about(facts, "problems")
    if problems is not None:
        yield Item("Known problems of the dataset", problems)


def _describe_model(facts: Facts) -> Iterator[Item]:
    net = facts.bundle.get("net", {})
    arguments = ", ".join(f"{key}={value}" for key, value in net.items() if key != "name")
    yield Item("Name", facts.run)
    yield Item("Evaluated", facts.made)
    yield Item("Architecture", f"{net['name']}" + (f" ({arguments})" if arguments else "") if net else None)
    yield Item("Classes", _listed(facts.bundle.get("class_names", [])) or None)
    yield Item("Input", _describe_preprocessing(facts.bundle))
    yield Item("Software", _listed([f"{name} {version}" for name, version in facts.versions.items()]) or None)
    yield Item("Licence and contact")


def _describe_parts(facts: Facts) -> Iterator[Item]:
    images, patients = facts.data.get("images", {}), facts.data.get("patients", {})
    yield Item("Dataset and its source", _about(facts, "source"))
    if (licence := _about(facts, "licence")) is not None:
        yield Item("Licence of the dataset", licence)
    for part, counts in images.items():
        classes = _listed([f"{count:,} {name}" for name, count in counts.items()])
        yield Item(f"Part {part}", f"{sum(counts.values()):,} images of {patients[part]:,} patients: {classes}")
    if images:
        yield Item("Counting of patients", "in the parts above, patients who share a film or its copy count as one")
        yield Item("Division", _describe_split(facts))


def _describe_split(facts: Facts) -> str:
    looked = "leaks" in facts.data
    if facts.data.get("from_split_file"):
        found = "was looked for by the leak gate" if looked else "was not looked for, since the leak gate was off"
        return f"parts were given by a file; what they share {found}"
    official = facts.data.get("official_parts", [])
    given = f"{' and '.join(official)} given by the dataset, the rest " if official else ""
    kept = "patients, studies, equal files and near copies of a film" if looked else "patients, studies and equal files"
    return f"{given}made by the seed {facts.config.get('seed')}, classes in proportion; {kept} are never divided there"


def _describe_composition(data: Mapping[str, Any]) -> Iterator[Item]:
    if not data:
        yield Item("Counts")
        return
    yield Item("Findings", _listed([f"{count:,} {finding}" for finding, count in data["findings"].items()]))
    yield Item("Classes", _listed(data["classes"]))
    yield Item("Files without a patient id", f"{data['missing_patient_ids']:,}")
    yield Item("Files that repeat another one", f"{data['exact_duplicates']['extra_files']:,}")
    if "leaks" in data:
        yield Item("Pairs shared between parts", f"{sum(data['leaks']['pairs'].values()):,}")
    yield Item("Fingerprint of ids, files and labels", data["fingerprint"])
    yield Item("Sensitive content")


def _describe_preprocessing(bundle: Mapping[str, Any]) -> str | None:
    if "preprocess" not in bundle:
        return "each member has its own" if bundle.get("kind") == "ensemble" else None
    preprocess = bundle["preprocess"]
    height, width = preprocess["size"]
    return (
        f"{preprocess['channels']} x {height} x {width}, proportions by {preprocess['aspect']}, "
        f"normaliser {preprocess['normalizer']}, values {preprocess['low']:g} to {preprocess['high']:g}"
    )


def _describe_exclusions(data: Mapping[str, Any]) -> str | None:
    if not data:
        return None
    counts = {
        "by label": data["findings_left_out"],
        "that cannot be read": data["unreadable_files"]["count"],
        "that give no image": data["undecodable_files"]["count"],
    }
    left = [f"{count:,} files {why}" for why, count in counts.items() if count]
    return _listed(left) or "no file"


def _answer_claim(facts: Facts) -> dict[int, str]:
    """Item -> what the run knows."""
    answers: dict[int, str | None] = {
        7: _about(facts, "source"),
        16: _about(facts, "labels"),
        40: _about(facts, "problems"),
        28: "see the tables of this report: discrimination, calibration and net benefit",
        29: "95% intervals from a bootstrap that draws patients; Clopper-Pearson where a share is 0 or 1",
        37: " ".join(facts.results),
        38: " ".join(facts.results),
    }
    if facts.data:
        answers |= {
            32: "validation and test parts of the same source, see the tables of this report",
            9: _describe_preprocessing(facts.bundle) or "see the bundle",
            10: f"views: {_describe_views(facts.data)}",
            11: "ids in this report are salted hashes" if facts.config.get("hash_ids") else "ids are told as they are",
            12: f"{facts.data['missing_patient_ids']:,} files without a patient id count as a patient each; left out: "
            f"{_describe_exclusions(facts.data)}",
            19: _describe_split(facts),
            20: "patient, where an id is known; else the film",
            35: "; ".join(str(item.text) for item in _describe_parts(facts) if item.label.startswith("Part ")),
        }
    if facts.bundle.get("kind") == "ensemble":
        net = facts.bundle["net"]
        answers |= {22: "see the runs named in ensemble.yaml", 27: f"{net['name']} models by the rule {net['rule']}"}
    if "net" in facts.config:
        config = facts.config
        answers |= {
            22: f"{config['net']['name']}; every argument is in config.yaml and in the bundle",
            23: _listed([f"{name} {version}" for name, version in facts.versions.items()]),
            24: _describe_initialisation(config),
            25: f"{_short(config['optimizer'])}, schedule {_short(config['scheduler'])}, "
            f"loss {_short(config['loss'])}, batches of {config['data']['batch_size']}, at most "
            f"{config['trainer']['max_epochs']} epochs, seed {config['seed']}; all of it in config.yaml",
            26: f"the epoch with the best {config['monitor']['metric']} on validation",
            43: "weights, settings and versions are in the bundle of the run; availability is for a person to state",
        }
    return {number: text for number, text in answers.items() if text}


def _describe_initialisation(config: Mapping[str, Any]) -> str:
    net = config["net"]
    published = net.get("architecture") if net.get("pretrained") else None  # where they lie is of this machine alone
    weights = net.get("weights", published)
    return "random weights by the seed" if weights is None else f"pretrained weights: {weights}"


def _describe_views(data: Mapping[str, Any]) -> str:
    views = data.get("views")
    return ", ".join(f"{key} {value}" for key, value in views.items()) if isinstance(views, Mapping) else str(views)


def _short(group: Mapping[str, Any]) -> str:
    target = group.get("_target_")
    return "none" if target is None else str(target).rpartition(".")[2]


def _listed(values: Sequence[object]) -> str:
    return ", ".join(str(value) for value in values)


CLAIM: tuple[tuple[str, tuple[tuple[int, str], ...]], ...] = (
    ("Title and abstract", ((1, "The title names the kind of AI method"), (2, "Structured summary"))),
    ("Introduction", ((3, "Background, intended use and role"), (4, "Aims and hypotheses"))),
    ("Study design", ((5, "Prospective or retrospective"), (6, "Goal of the study"))),
    (
        "Data",
        (
            (7, "Sources"),
            (8, "Who is included and excluded"),
            (9, "Preprocessing"),
            (10, "Choice of subsets"),
            (11, "De-identification"),
            (12, "Missing data"),
            (13, "How images were acquired"),
        ),
    ),
    (
        "Reference standard",
        (
            (14, "Definition"),
            (15, "Reason for it"),
            (16, "Who annotated"),
            (17, "Annotation of the test set"),
            (18, "Variability between and within annotators"),
        ),
    ),
    ("Partitions", ((19, "How they were made"), (20, "Level at which they are disjoint"), (21, "Sample size"))),
    ("Model", ((22, "Description"), (23, "Software"), (24, "Initial parameters"))),
    ("Training", ((25, "Details"), (26, "How the final model was chosen"), (27, "Ensembling"))),
    (
        "Evaluation",
        (
            (28, "Metrics"),
            (29, "Uncertainty and significance"),
            (30, "Robustness"),
            (31, "Explainability"),
            (32, "Internal data"),
            (33, "External data"),
            (34, "Registration"),
        ),
    ),
    (
        "Results",
        (
            (35, "Numbers included and excluded"),
            (36, "Demographics of each partition"),
            (37, "Performance"),
            (38, "Estimates and their precision"),
            (39, "Analysis of errors"),
        ),
    ),
    ("Discussion", ((40, "Limits"), (41, "What it means for practice"))),
    ("Other", ((42, "Protocol"), (43, "Availability"), (44, "Funding"))),
)
