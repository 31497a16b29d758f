import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from sklearn.metrics import auc, average_precision_score

from cxr.errors import DataError
from cxr.evaluation import figures
from cxr.evaluation.metrics import confusion_counts

LONG = [f"Class {k} with a rather long name" for k in range(10)]
SIIM = ["Negative for Pneumonia", "Typical Appearance", "Indeterminate Appearance", "Atypical Appearance"]
pytestmark = pytest.mark.filterwarnings("error")


def make_case(num_classes: int, n: int = 150) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    target = rng.integers(num_classes, size=n)
    logits = rng.normal(size=(n, num_classes)) + np.eye(num_classes)[target]
    return target, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def make_history(epochs: int = 5) -> pd.DataFrame:
    val = np.array([0.6, 0.8, 0.9, 0.85, 0.7])[:epochs]
    return pd.DataFrame(
        {"epoch": range(epochs), "train/loss": 1 - val, "val/loss": 1.1 - val, "val/auroc": val, "val/f1_macro": val}
    )


def texts_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts if text.get_text()]


def legend_of(figure: Figure) -> list[str]:
    legend = figure.axes[0].get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def overlaps(figure: Figure, axis: str) -> bool:
    figure.draw_without_rendering()
    labels = figure.axes[0].xaxis.get_ticklabels() if axis == "x" else figure.axes[0].yaxis.get_ticklabels()
    boxes = [label.get_window_extent() for label in labels]
    return any(one.overlaps(other) for one, other in pairwise(boxes))


def all_figures(num_classes: int, names: list[str]) -> dict[str, Figure]:
    target, probs = make_case(num_classes)
    preds = probs.argmax(axis=1)
    counts = confusion_counts(target, preds, num_classes)
    split = pd.DataFrame([counts.sum(axis=1)] * 3, index=["train", "val", "test"], columns=names)
    return {
        "confusion": figures.plot_confusion(counts, names, normalised=False),
        "normalised": figures.plot_confusion(counts, names, normalised=True),
        "f1": figures.plot_f1_heatmap(target, preds, names),
        "roc": figures.plot_roc(target, probs, names),
        "precision_recall": figures.plot_precision_recall(target, probs, names),
        "learning": figures.plot_learning_curves(make_history()),
        "counts": figures.plot_class_counts(split),
    }


@pytest.mark.parametrize("num_classes", [5, 10])
def test_every_figure_has_room_for_long_names(num_classes):
    for name, figure in all_figures(num_classes, LONG[:num_classes]).items():
        assert not overlaps(figure, "y"), name
        if num_classes <= 6:  # above, the names of the columns are slanted
            assert not overlaps(figure, "x"), name


def test_write_figure_makes_a_png(tmp_path):
    figures.write_figure(figures.plot_learning_curves(make_history()), tmp_path / "learning.png")
    assert [path.name for path in tmp_path.iterdir()] == ["learning.png"]
    assert (tmp_path / "learning.png").read_bytes().startswith(b"\x89PNG")


def test_confusion_has_counts_and_shares_in_its_cells():
    counts = np.array([[175, 9], [0, 0]])
    assert texts_of(figures.plot_confusion(counts, ["a", "b"], normalised=False)) == [
        *("175", "95 %", "9", "5 %"),
        *("0", "–", "0", "–"),
    ]
    assert texts_of(figures.plot_confusion(counts, ["a", "b"], normalised=True)) == [
        *("95 %", "175 / 184", "5 %", "9 / 184"),
        *("–", "0 / 0", "–", "0 / 0"),
    ]


def test_confusion_rows_are_the_truth_from_the_top():
    figure = figures.plot_confusion([[1, 2], [3, 4]], ["first", "second"], normalised=False)
    ax = figure.axes[0]
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("True class", "Predicted class")
    places = {text.get_text(): ax.transData.transform(text.xy) for text in ax.texts if text.get_text() in "1234"}
    assert places["1"][1] == places["2"][1] > places["3"][1]
    assert places["1"][0] < places["2"][0]


def test_f1_heatmap_has_every_value_with_its_counts():
    figure = figures.plot_f1_heatmap([0, 0, 0, 1], [0, 0, 1, 1], ["a", "b"])
    assert texts_of(figure) == [
        *("1.00", "2 / 2", "0.67", "2 / 3", "0.80"),
        *("0.50", "1 / 2", "1.00", "1 / 1", "0.67"),
        *("0.75", "0.83", "0.73"),
    ]


def test_f1_heatmap_of_a_class_without_a_case():
    figure = figures.plot_f1_heatmap([0, 0], [0, 1], ["a", "b"])
    assert texts_of(figure)[5:] == ["0.00", "0 / 1", "–", "0 / 0", "0.00", "0.50", "0.50", "0.33"]


@pytest.mark.parametrize("num_classes", [2, 4])
def test_roc_curves_have_the_area_that_the_legend_names(num_classes):
    target, probs = make_case(num_classes)
    figure = figures.plot_roc(target, probs, SIIM[:num_classes])
    chance, *curves = figure.axes[0].lines
    assert chance.get_xydata().tolist() == [[0, 0], [1, 1]]
    areas = [auc(curve.get_xdata(), curve.get_ydata()) for curve in curves]
    shown = SIIM[1:2] if num_classes == 2 else SIIM
    assert legend_of(figure) == [f"{area:.3f}   {name}" for area, name in zip(areas, shown, strict=True)]


@pytest.mark.parametrize("num_classes", [2, 4])
def test_precision_recall_has_average_precision_and_prevalence(num_classes):
    target, probs = make_case(num_classes)
    figure = figures.plot_precision_recall(target, probs, SIIM[:num_classes])
    shown = [1] if num_classes == 2 else range(4)
    expected = [
        f"{average_precision_score(target == k, probs[:, k]):.3f}   {(target == k).mean():.3f}   {SIIM[k]}"
        for k in shown
    ]
    assert legend_of(figure) == expected
    baselines = [
        line.get_ydata()[0]
        for line in figure.axes[0].lines
        if line.get_linestyle() == ":" or len(set(line.get_ydata())) == 1
    ]
    assert baselines == pytest.approx([(target == k).mean() for k in shown])


def test_curves_of_a_class_without_a_case_are_left_out_and_said_so():
    target, probs = make_case(3)
    figure = figures.plot_roc(np.where(target == 2, 0, target), probs, SIIM[:3])
    assert "–" in legend_of(figure)[2]
    assert len(figure.axes[0].lines[3].get_xdata()) == 0


def test_more_classes_than_colours_are_told_apart_by_dashes():
    target, probs = make_case(10)
    _, *curves = figures.plot_roc(target, probs, LONG).axes[0].lines
    assert len({(curve.get_color(), str(curve.get_linestyle())) for curve in curves}) == 10


@pytest.mark.parametrize(
    ("monitor", "mode", "best"), [("val/auroc", "max", 2), ("val/loss", "min", 2), ("val/loss", "max", 0)]
)
def test_learning_curves_mark_the_best_epoch(monitor, mode, best):
    figure = figures.plot_learning_curves(make_history(), monitor=monitor, mode=mode)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["Loss", "AUROC"]
    for ax in figure.axes:
        assert set(ax.lines[0].get_xdata()) == {best + 1}
    value = make_history().loc[best, monitor]
    assert figure.get_supxlabel() == f"Best epoch {best + 1} (circled): {monitor} = {value:.4f}"


def test_learning_curves_show_what_is_monitored_and_merge_the_rows_of_an_epoch():
    history = make_history()
    train, val = history[["epoch", "train/loss"]], history.drop(columns="train/loss")
    sparse = pd.concat([train, val], ignore_index=True)
    figure = figures.plot_learning_curves(sparse, monitor="val/f1_macro", panels=["loss"])
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["Loss", "F1 macro"]
    curves = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    np.testing.assert_array_equal(curves["train"], history["train/loss"])
    np.testing.assert_array_equal(curves["val"], history["val/loss"])


@pytest.mark.parametrize("monitor", ["val/accuracy", "train/loss", "epoch"])
def test_learning_curves_refuse_a_monitor_without_values(monitor):
    with pytest.raises(DataError, match=rf"expected values of {monitor} in the history, got columns \['val/auroc'"):
        figures.plot_learning_curves(make_history(), monitor=monitor)


def test_image_grid_shows_each_image_with_its_mark():
    images = [np.full((20, 30), value) for value in (0.0, 0.5, 1.0, 0.2, 0.4)]
    figure = figures.plot_image_grid(images, [f"image {i}" for i in range(5)], [True, False, True, True, True])
    shown = [ax for ax in figure.axes if ax.images]
    assert [ax.get_title(loc="left")[:1] for ax in shown] == ["✓", "✗", "✓", "✓", "✓"]
    assert [ax.get_title(loc="left")[2:] for ax in shown] == [f"image {i}" for i in range(5)]
    for ax, image in zip(shown, images, strict=True):
        np.testing.assert_array_equal(ax.images[0].get_array(), image)
        assert ax.images[0].get_clim() == (0, 1)


@pytest.mark.parametrize(("images", "flags"), [(0, 0), (2, 1)])
def test_image_grid_refuses_what_does_not_match(images, flags):
    with pytest.raises(DataError, match=rf"got {images} images, {images} titles and {flags} flags"):
        figures.plot_image_grid([np.zeros((4, 4))] * images, ["a"] * images, [True] * flags)


def test_class_counts_are_on_the_bars():
    counts = pd.DataFrame([[3000, 1000], [0, 0]], index=["train", "test"], columns=["normal", "pneumonia"])
    figure = figures.plot_class_counts(counts)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["train: 4,000", "test: 0"]
    assert texts_of(figure) == ["3,000  (75 %)", "1,000  (25 %)"]
    assert [bar.get_width() for bar in figure.axes[0].patches] == [3000, 1000]


def test_class_names_are_text_and_no_formula():
    odd = ["$\\frac{1}{$", "_hidden $x$"]
    for figure in all_figures(2, odd).values():
        figure.draw_without_rendering()
    target, probs = make_case(2)
    assert legend_of(figures.plot_roc(target, probs, odd))[0].endswith(r"_hidden \$x\$")


def test_the_same_figure_gives_the_same_bytes_in_any_thread(tmp_path):
    target, probs = make_case(2)

    def write(i: int) -> bytes:
        path = tmp_path / f"{i}.png"
        figures.write_figure(figures.plot_roc(target, probs, SIIM[:2]), path)
        return path.read_bytes()

    with ThreadPoolExecutor(3) as pool:
        assert len(set(pool.map(write, range(4)))) == 1


def test_figures_leave_nothing_behind():
    references = [weakref.ref(figure) for figure in all_figures(3, SIIM[:3]).values()]
    gc.collect()
    assert [reference() for reference in references] == [None] * len(references)
    assert plt.get_fignums() == []


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")
    figure = figures.plot_confusion([[1, 2], [3, 4]], ["a", "b"], normalised=False)

    def full_disk(self: Figure, target: Path, **_options: object) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full_disk)
    with pytest.raises(OSError, match="No space left"):
        figures.write_figure(figure, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_learning_curves_of_one_epoch_have_its_number_alone_on_the_axis():
    figure = figures.plot_learning_curves(make_history(1))
    figure.draw_without_rendering()
    low, high = figure.axes[0].get_xlim()
    assert [tick for tick in figure.axes[0].get_xticks() if low <= tick <= high] == [1]
