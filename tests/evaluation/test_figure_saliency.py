import numpy as np

from cxr.evaluation.figure_saliency import STRONGEST, colour_map, plot_explanation
from cxr.evaluation.figure_set import figure_to_array


def draw(**changes):
    image, saliency = np.full((40, 30), 0.5), np.zeros((40, 30))
    saliency[10:20, 5:15] = 1
    arguments = {"image": image, "saliency": saliency, "title": "predicted <sick> 0.9, truth $x$",
                 "subtitle": "what speaks for sick", "correct": False, **changes}  # fmt: skip
    return plot_explanation(**arguments)


def test_nothing_is_clear_and_the_most_is_the_end_of_the_colour_map():
    colours = colour_map(np.array([[0.0, 1.0]]))
    assert colours[0, 0, 3] == 0
    assert colours[0, 1, 3] == STRONGEST
    assert colours[0, 1, 0] > colours[0, 0, 0]


def test_the_image_stands_unmarked_beside_the_map():
    figure = draw(boxes=[(5, 10, 10, 10)])
    plain, covered = figure.axes[:2]
    assert (len(plain.images), len(covered.images)) == (1, 2)
    np.testing.assert_array_equal(plain.images[0].get_array(), np.full((40, 30), 0.5))
    assert plain.patches[:] == []
    (box,) = covered.patches
    assert (box.get_x(), box.get_y(), box.get_width(), box.get_height()) == (4.5, 9.5, 10, 10)


def test_the_text_is_drawn_as_it_is_with_a_mark_for_right_and_wrong():
    assert draw().get_suptitle() == r"✗ predicted <sick> 0.9, truth \$x\$"
    assert draw(correct=True).get_suptitle().startswith("✓")
    assert figure_to_array(draw()).shape[2] == 4


def test_a_map_changes_the_picture():
    assert not np.array_equal(figure_to_array(draw()), figure_to_array(draw(saliency=np.zeros((40, 30)))))
