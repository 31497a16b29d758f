import pandas as pd
import pytest

from cxr.data.labelled import LabelledSamples, tell_one_class
from cxr.errors import ConfigError


def test_one_class_against_all_others_is_two_classes():
    samples = pd.DataFrame({"label": [0, 1, 2, 1], "finding": list("abcb")})
    found = tell_one_class(LabelledSamples(samples, ["well", "ill", "odd"], {"classes": ["well", "ill", "odd"]}), "ill")
    assert found.samples["label"].tolist() == [0, 1, 0, 1]
    assert found.class_names == found.report["classes"] == ["not ill", "ill"]
    assert found.samples["finding"].tolist() == list("abcb")


@pytest.mark.parametrize("columns", [{"label": [0]}, {"target_ill": [1.0]}])
def test_a_class_that_is_not_there_is_refused(columns):
    dataset = LabelledSamples(pd.DataFrame(columns), ["well", "dead"], {})
    with pytest.raises(
        ConfigError, match=r"expected data.one_class to be a class of the dataset \(.*\), but got 'ill'"
    ):
        tell_one_class(dataset, "ill")
