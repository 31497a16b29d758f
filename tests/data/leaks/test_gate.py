import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr.data.leaks import gate
from cxr.data.leaks.films import NEAR
from cxr.data.leaks.gate import (
    KEYS,
    add_pixel_hashes,
    apply_gate,
    count_leaks,
    find_external_leaks,
    find_leaks,
    find_repeats,
    link_similar,
)
from cxr.data.leaks.similar import Similar, SimilarImages
from cxr.data.samples import PARTS
from cxr.errors import DataError

from .conftest import COPIES

SIDES = list(itertools.combinations(PARTS, 2))


def look(folder, drawer, table):
    similar = SimilarImages(folder, drawer).find(table["image_path"].tolist(), table["content_hash"].tolist())
    return add_pixel_hashes(table, similar), similar


@pytest.fixture
def rows(films):
    """15 people, five in each part."""
    return [(PARTS[number % 3], film) for number, film in enumerate(films[:15])]


def test_distinct_people_share_nothing(rows, make_table, drawer, tmp_path):
    assert find_leaks(*look(tmp_path, drawer, make_table(rows))).empty


@pytest.mark.parametrize(("one", "other"), SIDES)
def test_a_planted_copy_of_a_film_is_caught(one, other, rows, make_table, drawer, tmp_path):
    place = next(number for number, (part, _) in enumerate(rows) if part == one)
    leaks = find_leaks(*look(tmp_path, drawer, make_table([*rows, (other, COPIES["jpeg"](rows[place][1]))])))
    assert leaks[["kind", "part_a", "part_b", "sample_a", "sample_b"]].values.tolist() == [
        ["near", one, other, f"s{place:03d}", "s015"]
    ]
    assert NEAR <= leaks["score"][0] <= 1


@pytest.mark.parametrize(("one", "other"), SIDES)
def test_equal_pixels_in_other_bytes_are_caught(one, other, rows, make_table, drawer, tmp_path):
    place = next(number for number, (part, _) in enumerate(rows) if part == one)
    leaks = find_leaks(*look(tmp_path, drawer, make_table([*rows, (other, rows[place][1])])))
    assert leaks.values.tolist() == [["pixels", one, other, f"s{place:03d}", "s015", 1.0]]


@pytest.mark.parametrize(("one", "other"), SIDES)
@pytest.mark.parametrize("kind", ["file", "instance", "study", "patient"])
def test_a_shared_id_is_caught(kind, one, other):
    table = pd.DataFrame({"sample_id": ["a", "b", "c"], "split": [other, one, one], KEYS[kind]: ["x", "x", None]})
    assert find_leaks(table, None).values.tolist() == [[kind, one, other, "b", "a", 1.0]]


def test_a_missing_id_is_shared_with_nobody():
    assert find_leaks(
        pd.DataFrame({"sample_id": ["a", "b"], "split": ["train", "test"], "patient_id": None}), None
    ).empty


def test_a_pair_is_named_once_by_its_first_kind():
    shared = {"content_hash": "h", "patient_id": "p", "group": 0}
    leaks = find_leaks(pd.DataFrame({"sample_id": ["a", "b"], "split": ["train", "test"], **shared}), None)
    assert leaks["kind"].tolist() == ["file"]


def test_samples_linked_through_one_that_is_not_there():
    table = pd.DataFrame(
        {"sample_id": ["a", "b"], "split": ["train", "test"], "patient_id": ["p", "q"], "group": [0, 0]}
    )
    assert find_leaks(table, None)["kind"].tolist() == ["linked"]


values = st.lists(
    st.tuples(st.sampled_from(PARTS), st.sampled_from(["p", "q", "r", None]), st.sampled_from(["x", "y", "z", None])),
    min_size=1,
    max_size=12,
)


@given(values, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_laws_of_the_search(drawn, random):
    table = pd.DataFrame(drawn, columns=["split", "patient_id", "content_hash"], dtype=object)
    table["sample_id"] = [f"s{number}" for number in range(len(table))]
    leaks = find_leaks(table, None)
    shuffled = table.loc[random.sample(list(table.index), len(table))]
    pd.testing.assert_frame_equal(leaks, find_leaks(shuffled, None))
    guilty = {
        one.sample_id
        for one, other in itertools.permutations(table.itertuples(), 2)
        if one.split != other.split and any(a is not None and a == b for a, b in zip(one[2:4], other[2:4], strict=True))
    }
    assert {*leaks["sample_a"], *leaks["sample_b"]} == guilty
    swapped = find_leaks(table.assign(split=table["split"].map({"train": "test", "test": "train", "val": "val"})), None)
    assert {*swapped["sample_a"], *swapped["sample_b"]} == guilty


@given(values)
@settings(max_examples=60, deadline=None)
def test_nothing_is_shared_after_dropping(drawn):
    table = pd.DataFrame(drawn, columns=["split", "patient_id", "content_hash"], dtype=object)
    table["sample_id"] = [f"s{number}" for number in range(len(table))]
    leaks = find_leaks(table, None)
    kept = table[~table["sample_id"].isin(leaks["sample_a"])]
    assert find_leaks(kept, None).empty


def test_an_id_that_everybody_has_is_listed_in_a_line_per_sample():
    split = np.resize(PARTS, 3000)
    table = pd.DataFrame({"sample_id": [f"s{i:04d}" for i in range(3000)], "split": split, "patient_id": "ANONYMOUS"})
    assert len(find_leaks(table, None)) == 3000


def test_external_set(rows, make_table, drawer, tmp_path):
    table = make_table([*rows, ("test", COPIES["resized"](rows[0][1])), ("test", rows[1][1])])
    table, similar = look(tmp_path, drawer, table)
    own, external = table[:15], table[15:].drop(columns=["split", "pixel_hash"])
    external = external.assign(patient_id=["p2", "new"])
    leaks = find_external_leaks(own, external, similar)
    assert leaks[["kind", "part_a", "part_b", "sample_a", "sample_b"]].values.tolist() == [
        ["pixels", "val", "external", "s001", "s016"],
        ["patient", "test", "external", "s002", "s015"],
        ["near", "train", "external", "s000", "s015"],
    ]


def test_similar_images_join_groups_also_in_a_chain():
    pairs = pd.DataFrame({"pixel_a": ["a", "b"], "pixel_b": ["b", "c"], "score": [0.95, 0.86]})
    table = pd.DataFrame({"pixel_hash": ["a", "b", "c", "d", "e", "e"], "group": [0, 1, 2, 3, 3, 4]})
    assert link_similar(table, Similar({}, pairs)).tolist() == [0, 0, 0, 1, 1, 1]
    assert link_similar(table, Similar({}, pairs[:0])).tolist() == [0, 1, 2, 3, 3, 3]


@pytest.fixture
def leaking():
    """12 patients, each with one image in every part: their table and what they share."""
    ids = [f"{part}-{number}" for number in range(12) for part in PARTS]
    table = pd.DataFrame({"sample_id": ids, "split": np.resize(PARTS, 36), "image_path": [f"/x/{i}" for i in ids]})
    table["patient_id"] = np.repeat(np.arange(12), 3).astype(str)
    return table, find_leaks(table, None)


def test_stop_lists_the_first_pairs_and_writes_all(leaking, tmp_path):
    with pytest.raises(
        DataError,
        match=r"expected nothing shared between parts, but found 36 pairs \(12 x patient train/test, 12 x patient "
        r"train/val, 12 x patient val/test\): train-0 \(train\) and val-0 \(val\): patient; .* and 26 more; all are in "
        r".*leaks-\w+.csv: .*data.leak_gate=drop",
    ):
        apply_gate(*leaking, "stop", tmp_path)
    (written,) = tmp_path.glob("leaks-*.csv")
    table = pd.read_csv(written)
    assert len(table) == 36
    assert table.loc[0, ["path_a", "path_b"]].tolist() == ["/x/train-0", "/x/val-0"]


def test_drop_leaves_out_the_training_side(leaking, tmp_path, caplog):
    kept = apply_gate(*leaking, "drop", tmp_path)
    assert set(kept["split"]) == {"test"}
    assert "left out 24 samples that another part holds as well" in caplog.text
    assert "train-0" not in caplog.text


def test_warn_keeps_all_and_says_how_many(leaking, tmp_path, caplog):
    assert apply_gate(*leaking, "warn", tmp_path).equals(leaking[0])
    assert "parts share 36 pairs of samples" in caplog.text
    assert "train-0" not in caplog.text


def test_nothing_shared_writes_nothing(leaking, tmp_path):
    table, leaks = leaking
    assert apply_gate(table, leaks[:0], "stop", tmp_path).equals(table)
    assert list(tmp_path.iterdir()) == []
    assert count_leaks(leaks[:0]) == {}


def test_a_list_that_cannot_be_written(leaking, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write the list of leaks to .*; make room or choose another paths"):
        apply_gate(*leaking, "warn", tmp_path / "file")


def test_repeats_are_named_whatever_their_part(make_table, drawer, films, tmp_path):
    samples = make_table(
        [("train", films[0]), ("train", films[1]), ("val", films[2]), ("train", COPIES["jpeg"](films[0]))]
    )
    samples["patient_id"] = "one"
    twin = samples.iloc[[2]].assign(sample_id="twin", sop_instance_uid="1.2.99")
    samples = pd.concat([samples, twin], ignore_index=True)
    similar = SimilarImages(tmp_path, drawer).find(samples["image_path"].tolist(), samples["content_hash"].tolist())
    repeats = find_repeats(add_pixel_hashes(samples, similar), similar)
    found = repeats[["kind", "part_a", "part_b", "sample_a", "sample_b"]].to_numpy().tolist()
    assert sorted(found) == [["file", "val", "val", "s002", "twin"], ["near", "train", "train", "s000", "s003"]]


def test_each_of_many_equal_images_is_paired_with_the_first():
    ids = ["a", "b", "c", "d"]
    samples = pd.DataFrame({"sample_id": ids, "split": "train", "content_hash": ["x", "x", "x", "y"]})
    samples["pixel_hash"] = "p"
    repeats = find_repeats(samples, Similar({}, pd.DataFrame(columns=["pixel_a", "pixel_b", "score"])))
    assert repeats[["kind", "sample_a", "sample_b"]].to_numpy().tolist() == [
        ["file", "a", "b"], ["file", "a", "c"], ["pixels", "a", "d"],
    ]  # fmt: skip


def test_external_samples_may_have_the_ids_of_the_cohort():
    own = pd.DataFrame({"sample_id": ["x", "y"], "split": ["train", "test"], "patient_id": "p", "content_hash": "h"})
    external = pd.DataFrame({"sample_id": ["y", "x"], "patient_id": ["p", "q"], "content_hash": ["h9", "h"]})
    leaks = find_external_leaks(own, external, None)
    assert leaks[["kind", "part_a", "sample_a", "part_b", "sample_b"]].values.tolist() == [
        ["file", "train", "x", "external", "x"],
        ["file", "test", "y", "external", "x"],
        ["patient", "train", "x", "external", "y"],
        ["patient", "test", "y", "external", "y"],
    ]


@pytest.fixture
def chain():
    """Four images of one film, each alike the next only: train, train, val, test."""
    near = pd.DataFrame({"pixel_a": ["a", "b", "c"], "pixel_b": ["b", "c", "d"], "score": [0.99, 0.93, 0.95]})
    table = pd.DataFrame({"sample_id": list("abcd"), "split": ["train", "train", "val", "test"]})
    return table.assign(pixel_hash=list("abcd")), Similar({}, near)


def test_images_of_one_film_leak_also_where_others_join_them(chain):
    leaks = find_leaks(*chain)
    assert leaks[["part_a", "part_b", "sample_a", "sample_b", "score"]].values.tolist() == [
        ["train", "val", "b", "c", 0.93],
        ["val", "test", "c", "d", 0.95],
        ["train", "val", "a", "c", 0.93],
        ["train", "test", "a", "d", 0.93],
        ["train", "test", "b", "d", 0.93],
    ]
    assert set(leaks["kind"]) == {"near"}
    table, similar = chain
    assert find_leaks(table[~table["sample_id"].isin(leaks["sample_a"])], similar).empty


def test_images_that_were_only_linked_join_no_film(chain):
    table, similar = chain
    weak = Similar({}, similar.pairs.assign(score=[0.99, 0.88, 0.95]))
    assert find_leaks(table, weak)[["sample_a", "sample_b"]].values.tolist() == [["c", "d"]]


def test_a_leaking_table_is_searched_without_a_step_for_each_value(monkeypatch):
    """Work in Python grows with the parts, not with the patients."""
    calls = []
    pair_up = gate._pair_up
    monkeypatch.setattr(gate, "_pair_up", lambda *rows: calls.append(1) or pair_up(*rows))
    patients = np.arange(6000) // 6
    ids = [f"s{number:05d}" for number in range(6000)]
    table = pd.DataFrame({"sample_id": ids, "split": np.resize(PARTS, 6000), "patient_id": patients.astype(str)})
    leaks = find_leaks(table, None)
    assert len(leaks) == 3 * 2 * 1000
    assert (leaks["sample_a"].str[1:].astype(int) // 6 == leaks["sample_b"].str[1:].astype(int) // 6).all()
    assert len(calls) == 3
