import pytest
from matplotlib.text import Text

from cxr.evaluation import drawing
from cxr.evaluation.drawing import FONTS, UNKNOWN, can_draw, drawable_names, escape, make_figure, set_fonts
from cxr.evaluation.figure_set import figure_to_array
from cxr.evaluation.figures import write_figure

UNWRITTEN = "\U00013080"  # a hieroglyph, in none of the fonts


@pytest.fixture
def only_dejavu(monkeypatch):
    """A system without other fonts."""
    for remembered in (drawing._find_fonts, drawing._drawable):
        remembered.cache_clear()
    monkeypatch.setattr(drawing, "FONTS", ("DejaVu Sans", "A font that is not there"))
    yield
    for remembered in (drawing._find_fonts, drawing._drawable):
        remembered.cache_clear()


def test_names_that_no_font_has_are_numbered(only_dejavu):
    assert drawable_names(["well", "Пневмония", "正常", "ill 肺"]) == ["well", "Пневмония", "class 3", "class 4"]
    assert can_draw("a b\nc ≥ …")
    assert not can_draw("a 正")


def test_other_texts_show_that_a_character_is_missing(only_dejavu):
    assert escape("run 正 $5") == rf"run {UNKNOWN} \$5"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("text", ["正常", UNWRITTEN, "طبيعي", "Пневмония ≥ 3"])
def test_no_text_gives_a_warning(text, tmp_path):
    for draw in (figure_to_array, lambda figure: write_figure(figure, tmp_path / "figure.png")):
        figure = make_figure(2, 1)
        figure.suptitle(escape(text), fontweight="bold")
        figure.subplots().set_xticks([0], [escape(text)])
        draw(figure)


def test_every_text_may_use_every_font_that_is_there(monkeypatch):
    monkeypatch.setattr(drawing, "_find_fonts", lambda: ["DejaVu Sans", "DejaVu Serif"])
    figure = make_figure(2, 1)
    ax = figure.subplots()
    ax.set_xticks([0], ["a name"])
    ax.plot([0], [0], label="another")
    ax.legend(title="a title")
    set_fonts(figure)
    assert {tuple(text.get_fontfamily()) for text in figure.findobj(Text)} == {("DejaVu Sans", "DejaVu Serif")}


def test_the_font_that_comes_with_matplotlib_is_the_first():
    assert drawing._find_fonts()[0] == FONTS[0] == "DejaVu Sans"
