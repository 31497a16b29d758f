from dataclasses import dataclass

import numpy as np
import pytest

from cxr.imaging.preprocess import Preprocess
from cxr.inference.intake import Told
from cxr.inference.predictor import Predictor, Scores
from cxr.inference.verdict import WARNINGS, judge, list_points

POINT = {"rule": "youden", "positive_class": "ill", "threshold": 0.3}


@dataclass(frozen=True, kw_only=True)
class Silent(Predictor):
    preprocesses = (Preprocess(),)

    def score_stored(self, stored):
        raise NotImplementedError


def verdict(*probs, unlike=0.5, inverted=False, view="pa", subject="maybe_chest", frames=1, **settings):
    settings = {"class_names": ["well", "ill"], "calibrated": True, **settings}
    scores = Scores(np.array([probs]), np.array([unlike]), np.array([inverted]))
    return judge(Silent(**settings), scores, [Told(view, subject, frames)])[0]


def test_answer_probabilities_and_decision():
    found = verdict(0.6, 0.4, operating_point=POINT)
    assert found.to_dict() == {
        "label": "well", "probs": {"well": 0.6, "ill": 0.4}, "decisions": {"ill": True}, "abstained": None,
        "warnings": [],
    }  # fmt: skip


def test_the_operating_point_itself_is_positive_and_below_is_not():
    assert verdict(0.7, 0.3, operating_point=POINT).decisions == {"ill": True}
    assert verdict(0.7001, 0.2999, operating_point=POINT).decisions == {"ill": False}


def test_without_an_operating_point_nothing_is_decided():
    assert verdict(0.6, 0.4).decisions == {}


def test_several_targets_have_a_point_each():
    points = {"effusion": {"threshold": 0.2}, "mass": {"threshold": 0.9}}
    names = ["effusion", "mass", "hernia"]
    found = verdict(0.5, 0.6, 0.1, class_names=names, multilabel=True, operating_point=points)
    assert found.decisions == {"effusion": True, "mass": False}
    assert found.label == "effusion; mass"
    assert list_points(Silent(class_names=names, operating_point=points)) == {"effusion": 0.2, "mass": 0.9}


@pytest.mark.parametrize(("confidence", "abstained"), [(0.8, False), (0.79, True)])
def test_below_the_confidence_it_abstains(confidence, abstained):
    assert verdict(1 - confidence, confidence, abstention={"threshold": 0.8}).abstained is abstained


@pytest.mark.parametrize(
    ("facts", "warning"),
    [
        ({"unlike": 1.1}, "unlike_training"),
        ({"inverted": True}, "inverted"),
        ({"view": "other"}, "not_frontal"),
        ({"subject": "no_radiograph"}, "not_a_radiograph"),
        ({"subject": "elsewhere"}, "not_a_chest"),
        ({"frames": 2}, "one_of_several"),
        ({"calibrated": False}, "not_calibrated"),
    ],
)
def test_warnings(facts, warning):
    assert verdict(0.6, 0.4, **facts).warnings == (warning,)
    assert WARNINGS[warning].endswith(".")


def test_what_is_not_known_warns_of_nothing():
    assert verdict(0.6, 0.4, unlike=np.nan, view="unknown").warnings == ()
