import numpy as np
import onnx
import pytest

from cxr.classical.convert import TOLERANCE, check_parity, to_onnx
from cxr.classical.families import FAMILIES, Rows, fit_model
from cxr.errors import TrainingError
from cxr.inference.classical_predictor import ask_model, open_model

RNG = np.random.default_rng(0)


def make_rows(classes):
    labels = np.arange(120) % classes
    table = RNG.random((120, 60)) + 0.5 * (labels[:, None] == np.arange(60) % classes)
    return Rows(table.astype(np.float32), labels, np.arange(120))


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_graph_answers_as_scikit_learn_on_new_rows(family, classes):
    rows = make_rows(classes)
    model = fit_model(family, FAMILIES[family].first, rows, 1, 0)
    graph = to_onnx(model, 60)
    onnx.checker.check_model(onnx.load_from_string(graph))
    assert check_parity(model, graph, rows.table, family) <= TOLERANCE
    new = RNG.random((64, 60)).astype(np.float32)
    np.testing.assert_allclose(ask_model(open_model(graph), new), model.predict_proba(new), atol=TOLERANCE)


def test_a_graph_that_answers_otherwise_is_refused():
    rows = make_rows(2)
    model = fit_model("logistic_regression", {"scaler": "standard", "C": 1.0}, rows, 1, 0)
    other = fit_model("logistic_regression", {"scaler": "standard", "C": 0.5}, rows, 1, 0)
    message = r"graph of lr_3 to give the model's probabilities within 0.0001, but one of 64 images differs by 0\.\d+"
    with pytest.raises(TrainingError, match=message):
        check_parity(model, to_onnx(other, 60), rows.table, "lr_3")


def test_a_graph_that_gives_no_numbers_is_refused():
    class Broken:
        def predict_proba(self, table):
            return np.full((len(table), 2), np.nan)

    rows = make_rows(2)
    graph = to_onnx(fit_model("knn", FAMILIES["knn"].first, rows, 1, 0), 60)
    with pytest.raises(TrainingError, match="differs by nan"):
        check_parity(Broken(), graph, rows.table, "knn_0")
