import hashlib
import json
import shutil

import pytest

from cxr.errors import WeightsError
from cxr.serving.facts import read_facts


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


def test_a_bundle_without_a_card(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "bundle")
    (tmp_path / "bundle" / "model_card.md").unlink()
    assert read_facts(tmp_path / "bundle").card is None


@pytest.mark.parametrize("change", [{"net": None}, {"net": {}}, {"temperature": 0}, {"class_names": 3}])
def test_a_damaged_bundle(bundle, tmp_path, change):
    description = {**json.loads((bundle / "bundle.json").read_text()), **change}
    (tmp_path / "bundle.json").write_text(json.dumps(description))
    with pytest.raises(WeightsError, match="to describe a predictor, got"):
        read_facts(tmp_path)
