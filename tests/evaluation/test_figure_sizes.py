import numpy as np
import pandas as pd
import pytest

from cxr.evaluation.figure_sizes import plot_sizes


def test_every_size_is_drawn_with_both_metrics_and_their_intervals():
    curve = pd.DataFrame({
        "images": [100, 1000], "auroc": [0.8, 0.9], "auroc_low": [0.7, 0.85], "auroc_high": [0.88, 0.94],
        "balanced_accuracy": [0.7, 0.8],
        "balanced_accuracy_low": [0.6, np.nan],
        "balanced_accuracy_high": [0.8, np.nan],
    })  # fmt: skip
    (ax,) = plot_sizes(curve).axes
    drawn = {line.get_label(): line.get_ydata().tolist() for line in ax.lines}
    assert drawn == {"AUROC": [0.8, 0.9], "Balanced accuracy": [0.7, 0.8]}
    assert [label.get_text() for label in ax.get_xticklabels()] == ["100", "1,000"]
    ends = ax.collections[0].get_segments()
    assert [segment[:, 1].tolist() for segment in ends] == [pytest.approx([0.7, 0.88]), pytest.approx([0.85, 0.94])]
