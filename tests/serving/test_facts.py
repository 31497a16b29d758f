import hashlib
import json
import shutil
from pathlib import Path

import pytest

from cxr.errors import WeightsError
from cxr.serving.facts import read_facts

from .conftest import add_card


def test_facts_of_a_bundle(bundle):
    facts = read_facts(bundle)
    assert facts.to_name() == {
        "name": "custom_cnn",
        "version": hashlib.sha256((bundle / "bundle.json").read_bytes()).hexdigest()[:12],
        "class_names": ["normal", "pneumonia"],
    }
    told = facts.to_dict()
    assert told["metrics"] == {"test/auroc": 0.9}
    assert (told["data_fingerprint"], told["card"], told["calibrated"]) == ("abc", "# A card\n", True)
    assert told["operating_point"]["positive_class"] == "pneumonia"
    assert told["research_use_only"] is True


@pytest.fixture
def copied(bundle, tmp_path):
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


def test_a_card_that_the_bundle_does_not_name_is_no_part_of_it(copied):
    described = json.loads((copied / "bundle.json").read_text())
    del described["sha256"]["model_card.md"]
    (copied / "bundle.json").write_text(json.dumps(described))
    assert read_facts(copied).card is None


def test_a_card_that_was_changed_is_not_shown(copied):
    (copied / "model_card.md").write_text("# Another card\n")
    with pytest.raises(WeightsError, match=r"expected .*model_card.md with SHA-256"):
        read_facts(copied)


def test_a_card_that_is_no_text(copied):
    add_card(copied, b"\xff")
    with pytest.raises(WeightsError, match=r"expected text in UTF-8 in .*model_card\.md, got other bytes"):
        read_facts(copied)


@pytest.mark.parametrize(
    "change", [{"net": None}, {"net": {}}, {"temperature": 0}, {"class_names": 3}, {"sha256": None}]
)
def test_a_damaged_bundle(bundle, tmp_path, change):
    description = {**json.loads((bundle / "bundle.json").read_text()), **change}
    (tmp_path / "bundle.json").write_text(json.dumps(description))
    with pytest.raises(WeightsError, match="to describe a predictor, got"):
        read_facts(tmp_path)
