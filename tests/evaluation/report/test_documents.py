import re
from dataclasses import replace

import pytest

from cxr.evaluation.report.documents import (
    BLANK,
    CLAIM,
    RESEARCH_ONLY,
    SYNTHETIC,
    Facts,
    make_claim,
    make_datasheet,
    make_model_card,
    to_markdown,
)
from cxr.evaluation.report.material import read_run


@pytest.fixture
def facts(run):
    material = read_run(run)
    results = ["AUROC 0.9 (0.8 to 0.95) on test."]
    return Facts("recipe", "today", material.config, material.data, {}, {"torch": "2.11"}, results, ["sex"], False)


@pytest.fixture
def nothing():
    return Facts("table", "today", {}, {}, {}, {}, [], [], False)


def items(sections):
    return {item.label: item.text for section in sections for item in section.items}


@pytest.mark.parametrize("make", [make_model_card, make_datasheet, make_claim])
def test_every_document_says_research_use_only_and_marks_blanks(facts, nothing, make):
    for known in (facts, nothing):
        text = to_markdown("A document", make(known))
        assert f"**{RESEARCH_ONLY}**" in text
        assert f"*{BLANK}*" in text


ABOUT = {"source": "One hospital.", "licence": "CC BY.", "labels": "By radiologists.", "problems": "Children only."}


def test_what_is_known_of_a_public_dataset_is_filled_in_and_is_blank_for_others(facts):
    told = replace(facts, config={**facts.config, "data": {**facts.config["data"], "about": ABOUT}})
    card, sheet, claim = (items(make(told)) for make in (make_model_card, make_datasheet, make_claim))
    assert card["Dataset and its source"] == sheet["Source"] == claim["7. Sources"] == "One hospital."
    assert card["Licence of the dataset"] == sheet["Licence"] == "CC BY."
    assert sheet["How labels were made"] == claim["16. Who annotated"] == "By radiologists."
    problems = "Known problems of the dataset"
    assert card[problems] == sheet[problems] == claim["40. Limits"] == "Children only."

    card, sheet, claim = (items(make(facts)) for make in (make_model_card, make_datasheet, make_claim))
    blanks = [card["Dataset and its source"], sheet["Source"], sheet["Licence"], sheet["How labels were made"]]
    assert blanks + [claim[name] for name in ("7. Sources", "16. Who annotated", "40. Limits")] == [None] * 7
    assert not {problems, "Licence of the dataset"} & {*card, *sheet}


def test_merged_datasets_are_told_by_name(facts):
    data = {"about": None, "sources": {"children": {"about": ABOUT}, "own": {"about": None}}}
    card = items(make_model_card(replace(facts, config={**facts.config, "data": {**facts.config["data"], **data}})))
    assert card["Dataset and its source"] == f"children: One hospital. own: ({BLANK})"
    data["sources"].pop("children")
    card = items(make_model_card(replace(facts, config={**facts.config, "data": {**facts.config["data"], **data}})))
    assert card["Dataset and its source"] is None


def test_claim_has_its_44_items_in_order():
    assert [number for _, listed in CLAIM for number, _ in listed] == list(range(1, 45))


@pytest.mark.parametrize(
    ("net", "told"),
    [
        (
            {"architecture": "densenet121", "pretrained": True, "weights_path": "/home/me"},
            "pretrained weights: densenet121",
        ),
        ({"architecture": "densenet121", "pretrained": False}, "random weights by the seed"),
        ({"weights": "rsna"}, "pretrained weights: rsna"),
        ({"weights": None}, "random weights by the seed"),
    ],
)
def test_initial_weights_are_told(net, told, facts):
    config = {**facts.config, "net": {"name": "a net", **net}}
    assert items(make_claim(replace(facts, config=config)))["24. Initial parameters"] == told


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"leaks": {"pairs": {}}}, "made by the seed 7, .* and near copies of a film are never divided there"),
        ({}, "made by the seed 7, .* studies and equal files are never divided there"),
        ({"official_parts": ["test"]}, "test given by the dataset, the rest made by the seed 7"),
        ({"from_split_file": True, "leaks": {"pairs": {}}}, "what they share was looked for by the leak gate"),
        ({"from_split_file": True}, "what they share was not looked for, since the leak gate was off"),
    ],
    ids=["gate", "no gate", "official", "file", "file, no gate"],
)
def test_the_division_is_told_as_it_was_made(data, told, facts):
    text = items(make_claim(replace(facts, data={**facts.data, **data})))["19. How they were made"]
    assert re.search(told, text)


def test_a_table_from_elsewhere_claims_nothing_of_its_source(nothing):
    assert items(make_claim(nothing))["32. Internal data"] is None


def test_what_the_run_knows_is_filled_in(facts):
    claim = items(make_claim(facts))
    assert claim["24. Initial parameters"] == "random weights by the seed"
    assert "same source" in claim["32. Internal data"]
    assert claim["25. Details"].startswith(
        "AdamW, schedule none, loss make_cross_entropy, batches of 16, at most 3 epochs, seed 7"
    )
    assert claim["37. Performance"] == "AUROC 0.9 (0.8 to 0.95) on test."
    assert claim["5. Prospective or retrospective"] is None
    card = items(make_model_card(facts))
    assert card["Part test"] == "100 images of 50 patients: 50 well, 50 ill"
    assert card["Measured by group"] == "sex"
    sheet = items(make_datasheet(facts))
    assert sheet["Left out"] == "3 files by label, 1 files that cannot be read"
    assert sheet["Files that repeat another one"] == "2"


def test_a_given_split_is_not_called_made_by_the_seed(facts):
    given = replace(facts, data={**facts.data, "from_split_file": True})
    assert "given by a file" in items(make_claim(given))["19. How they were made"]
    assert "made by the seed 7" in items(make_claim(facts))["19. How they were made"]


def test_phantoms_are_called_synthetic(facts):
    assert SYNTHETIC not in str(make_model_card(facts))
    assert SYNTHETIC in str(make_model_card(replace(facts, synthetic=True)))


def test_a_table_knows_nothing_of_its_data(nothing):
    assert items(make_datasheet(nothing))["Counts"] is None
    assert items(make_claim(nothing))["9. Preprocessing"] is None
