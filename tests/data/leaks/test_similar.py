import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cxr.data.leaks import similar
from cxr.data.leaks.alignment import detail_correlation
from cxr.data.leaks.films import LINKED, NEAR
from cxr.data.leaks.gate import add_pixel_hashes, link_similar
from cxr.data.leaks.similar import SimilarImages
from cxr.data.leaks.thumbnails import ThumbnailStore, without_bars
from cxr.errors import DataError
from cxr.imaging.preprocess import Preprocess

from .conftest import COPIES


def find(folder, drawer, table):
    return SimilarImages(folder, drawer).find(table["image_path"].tolist(), table["content_hash"].tolist())


@pytest.mark.parametrize("kind", COPIES)
def test_copies_of_a_film_are_found_and_other_people_are_not(kind, films, make_table, drawer, tmp_path):
    copies = [COPIES[kind](film) for film in films[:5]]
    table = make_table([("train", film) for film in [*films, *copies]])
    found = find(tmp_path, drawer, table)
    of_pixels = {found.pixel_hashes[key]: row for row, key in enumerate(table["content_hash"])}
    pairs = found.pairs[found.pairs["score"] >= NEAR]
    rows = {frozenset((of_pixels[a], of_pixels[b])) for a, b in zip(pairs["pixel_a"], pairs["pixel_b"], strict=True)}
    assert rows == {frozenset((number, len(films) + number)) for number in range(5)}


def test_of_several_that_ask_at_once_one_searches(films, make_table, drawer, tmp_path, monkeypatch):
    searches = []
    search = SimilarImages._search
    monkeypatch.setattr(SimilarImages, "_search", lambda *arguments: searches.append(1) or search(*arguments))
    table = make_table([("train", film) for film in films[:4]])
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(find, [tmp_path] * 2, [drawer] * 2, [table] * 2)
    assert len(searches) == 1
    assert first.pixel_hashes == second.pixel_hashes


def test_few_images_are_all_compared(films, make_table, drawer, tmp_path):
    table = make_table([("train", films[0]), ("train", films[1]), ("train", COPIES["jpeg"](films[0]))])
    assert len(find(tmp_path, drawer, table).pairs) == 1


def test_one_image_is_alike_nothing(films, make_table, drawer, tmp_path):
    assert find(tmp_path, drawer, make_table([("train", films[0])])).pairs.empty


def test_the_order_of_the_files_does_not_matter(films, make_table, drawer, tmp_path):
    table = make_table([("train", film) for film in [*films, *map(COPIES["cropped"], films[:5])]])
    first = find(tmp_path / "one", drawer, table)
    second = find(tmp_path / "two", drawer, table.sample(frac=1, random_state=0))
    assert first.pixel_hashes == second.pixel_hashes
    assert first.pairs.equals(second.pairs)
    assert len(first.pairs) >= 5


def test_a_mirrored_film_is_another(films):
    film = films[0].astype(np.float32)
    assert detail_correlation(film, film) == pytest.approx(1, abs=1e-3)
    assert detail_correlation(film, np.ascontiguousarray(film[:, ::-1])) < LINKED


def test_exchanging_the_images_changes_little(films):
    one, other = films[0].astype(np.float32), COPIES["cropped"](films[0]).astype(np.float32)
    assert detail_correlation(one, other) == pytest.approx(detail_correlation(other, one), abs=0.05)


def test_images_that_show_nothing_are_not_alike():
    flat = np.full((64, 64), 100, np.float32)
    noise = np.random.default_rng(0).uniform(0, 255, (64, 64)).astype(np.float32)
    assert detail_correlation(flat, noise) < LINKED


def test_second_search_computes_nothing(films, make_table, drawer, tmp_path, monkeypatch):
    table = make_table([("train", film) for film in films])
    first = find(tmp_path, drawer, table)
    opened = drawer.opened
    calls = []
    monkeypatch.setattr(similar, "find_films", lambda *given: calls.append(1))
    second = find(tmp_path, drawer, table)
    assert (drawer.opened, calls) == (opened, [])
    assert first.pixel_hashes == second.pixel_hashes
    assert first.pairs.equals(second.pairs)


def test_a_new_file_costs_one_thumbnail(films, make_table, drawer, tmp_path):
    table = make_table([("train", film) for film in films])
    describe = ThumbnailStore(tmp_path / "db", drawer).describe
    describe(table["image_path"][:-1].tolist(), table["content_hash"][:-1].tolist())
    opened = drawer.opened
    prints = describe(table["image_path"].tolist(), table["content_hash"].tolist())
    assert drawer.opened == opened + 1
    assert prints.thumbnails.shape == (len(films), 64, 64)
    assert len(set(prints.pixel_hashes)) == len(films)


def test_a_damaged_answer_is_made_anew(films, make_table, drawer, tmp_path):
    table = make_table([("train", film) for film in films[:3]])
    first = find(tmp_path, drawer, table)
    (answer,) = tmp_path.rglob("*.json")
    whole = json.loads(answer.read_text())
    answer.write_text("{")
    assert find(tmp_path, drawer, table).pixel_hashes == first.pixel_hashes
    assert json.loads(answer.read_text()) == whole


def test_a_database_that_cannot_be_used(films, make_table, drawer, tmp_path):
    (tmp_path / "db").mkdir()
    table = make_table([("train", films[0])])
    with pytest.raises(DataError, match=r"expected usable thumbnails at .*db, but got: .*; free space or permit"):
        ThumbnailStore(tmp_path / "db", drawer).describe(table["image_path"], table["content_hash"])


def test_a_folder_that_cannot_be_written(films, make_table, drawer, tmp_path, monkeypatch):
    def refuse(self, text):
        raise OSError("No space left on device")

    monkeypatch.setattr(similar.Path, "write_text", refuse)
    with pytest.raises(DataError, match="cannot write what the leak gate found to .*No space left.*leak_gate=off"):
        find(tmp_path, drawer, make_table([("train", films[0])]))


@pytest.mark.parametrize(("side", "told"), [(64, True), (96, False)])
def test_images_too_small_for_fine_detail_are_told(side, told, films, make_table, drawer, tmp_path, caplog):
    drawer.preprocess = Preprocess(size=(side, 128))
    find(tmp_path, drawer, make_table([("train", film) for film in films[:2]]))
    assert ("below 96 pixels some are missed; look for them once with preprocess.size=[224,224]" in caplog.text) == told


def test_a_set_of_many_copies_is_found_whole(films, make_table, drawer, tmp_path):
    """More pairs of copies than pairs that may be looked at in vain."""
    rng, copies = np.random.default_rng(0), 9

    def change(film):
        left, right, top, bottom = rng.integers(0, 9, 4)
        bright = np.clip(film * rng.uniform(0.8, 1.2) + rng.uniform(-15, 15), 0, 255).astype(np.uint8)
        return bright[top : 256 - bottom, left : 256 - right]

    table = make_table([("train", change(film)) for film in films[:20] for _ in range(copies)])
    found = find(tmp_path, drawer, table)
    linked = link_similar(add_pixel_hashes(table.assign(group=range(len(table))), found), found)
    assert linked.tolist() == np.repeat(np.arange(20), copies).tolist()


@pytest.mark.parametrize("axis", [0, 1])
def test_bars_of_padding_are_cut_off_and_other_black_is_kept(axis):
    image = np.pad(np.ones((10, 10), np.float32), [(3, 4), (0, 2)] if axis == 0 else [(0, 2), (4, 3)])
    assert without_bars(image).shape == (((11, 12)) if axis == 0 else (12, 11))
    assert without_bars(np.zeros((5, 4), np.float32)).shape == (5, 4)
