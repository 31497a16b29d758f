import json

import pytest

from cxr.evaluation.explain_page import read_explanations, write_page

FACTS = {"run": "demo", "part": "test", "method": "gradcam", "images": 9, "target": None, "notes": ["A note."]}
SANITY = {"images": 4, "state": "passed", "failed": False, "verdict": "the maps <depend> on the net", "rows": [],
          "memorised": 1.0, "limit": 0.7}  # fmt: skip
INTERVAL = {"value": 0.5, "low": 0.4, "high": 0.6, "method": "patient bootstrap", "k": None, "n": None}
SCORES = dict.fromkeys(("pointing", "iou", "energy", "average_precision"), INTERVAL)
LOCALISATION = {
    "images": 9, "boxed": 6, "patients": 5, "classes": ["ill"], "even": 0.1, "rows": [{"sample_id": "a"}],
    "scores": dict.fromkeys(("map", "centre", "others"), SCORES),
    "gains": {"others": SCORES, "centre": SCORES | {"iou": INTERVAL | {"low": None, "high": None}}},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "explain" / "test_gradcam"
    folder.mkdir(parents=True)
    return folder


def test_what_is_written_is_read_again_without_single_images(folder, tmp_path):
    write_page(folder, FACTS, [], LOCALISATION, SANITY)
    (found,) = read_explanations(tmp_path)
    scored = {key: value for key, value in LOCALISATION.items() if key != "rows"}
    assert found == FACTS | {"sanity": SANITY, "localisation": scored}
    assert json.loads((folder / "localisation.json").read_text()) == LOCALISATION


def test_the_page_shows_intervals_and_where_there_is_none(folder):
    page = write_page(folder, FACTS, [], LOCALISATION, SANITY).read_text()
    assert page.count("0.400 to 0.600") == 19
    assert page.count("no interval") == 1
    assert "&lt;depend&gt;" in page
    assert "<p>A note.</p>" in page


def test_scores_of_an_earlier_call_do_not_stay(folder, tmp_path):
    write_page(folder, FACTS, [], LOCALISATION, SANITY)
    write_page(folder, FACTS, [], None, SANITY)
    assert not (folder / "localisation.json").exists()
    assert read_explanations(tmp_path)[0]["localisation"] is None


def test_a_run_without_explanations_has_none(tmp_path):
    assert read_explanations(tmp_path) == []
