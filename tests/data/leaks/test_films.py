import logging

import numpy as np
import pandas as pd
import pytest

from cxr.data.leaks import films
from cxr.data.leaks.candidates import NEIGHBOURS, Pairs, find_candidates
from cxr.data.leaks.films import LINKED, NEAR, find_films
from cxr.data.splits import make_groups


def shaded(films, copies, seed=0):
    """(films * copies, 64, 64) thumbnails of noise, each film `copies` times with a little noise of its own."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, 256, (films, 8, 8)).repeat(8, axis=1).repeat(8, axis=2).repeat(copies, axis=0)
    return np.clip(drawn + rng.normal(0, 6, drawn.shape), 0, 255).astype(np.uint8)


class Judge:
    """Scores pairs by the film of each image, and counts them."""

    def __init__(self, film, alike=0.97):
        self.film, self.alike, self.pairs = np.asarray(film), alike, []

    def __call__(self, pairs):
        self.pairs += list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
        return np.where(self.film[pairs.first] == self.film[pairs.second], self.alike, 0.1)


def group(found, count):
    """Film of each image as the pairs join them, numbered by first appearance."""
    itself = np.arange(count)
    ends = np.stack([[*found.first, *itself], [*found.second, *itself]], axis=1)
    links = pd.DataFrame({"row": ends.ravel(), "pair": np.repeat(np.arange(len(ends)), 2)})
    groups = make_groups(links.sort_values("row"), ["row", "pair"]).groupby(links["row"]).first()
    return pd.factorize(groups)[0]


@pytest.mark.parametrize(("people", "copies"), [(100, 12), (30, 40), (6, 100)])
def test_films_with_many_copies_are_found_whole(people, copies):
    film = np.repeat(np.arange(people), copies)
    judge = Judge(film)
    found = find_films(shaded(people, copies), judge)
    assert (group(found, len(film)) == film).all()
    assert len(set(judge.pairs)) == len(judge.pairs) == found.looked_at <= 1256 + 3 * len(film)


def test_every_image_of_a_crowd_of_copies_is_joined_to_those_beyond_its_neighbours():
    """Four clusters of one film: each image has its whole list of neighbours in its own cluster."""
    cluster = np.repeat(np.arange(4), 2 * NEIGHBOURS)
    rng = np.random.default_rng(0)
    film = rng.integers(0, 256, (16, 16)).repeat(4, axis=0).repeat(4, axis=1)
    kinds = np.clip(film + 40 * rng.standard_normal((4, 16, 16)).repeat(4, axis=1).repeat(4, axis=2), 0, 255)
    others = shaded(60, 1).astype(float)
    thumbnails = np.concatenate([kinds[cluster], others])
    thumbnails = np.clip(thumbnails + rng.normal(0, 2, thumbnails.shape), 0, 255).astype(np.uint8)
    near = find_candidates(thumbnails)
    inside = (near.first < len(cluster)) & (near.second < len(cluster))
    assert (cluster[near.first[inside]] == cluster[near.second[inside]]).all()
    truth = np.concatenate([np.zeros(len(cluster), int), 1 + np.arange(60)])
    assert (group(find_films(thumbnails, Judge(truth)), len(truth)) == truth).all()


def test_a_pair_that_only_links_does_not_hide_the_copies_behind_it():
    """Images of one group may be looked at still: only a chain of near pairs makes a film."""
    film = np.repeat(np.arange(60), 20)
    halves = film * 2 + np.arange(len(film)) % 2

    def score(pairs):
        same = np.where(film[pairs.first] == film[pairs.second], (LINKED + NEAR) / 2, 0.0)
        return np.where(halves[pairs.first] == halves[pairs.second], 0.99, same)

    found = find_films(shaded(60, 20), score)
    near = films.Alike(*(column[found.scores >= NEAR] for column in found[:3]), 0)
    assert (group(found, len(film)) == film).all()
    assert len(np.unique(group(near, len(film)))) == 120


def test_looks_in_vain_are_bounded(caplog):
    judge = Judge(np.arange(900))
    with caplog.at_level(logging.WARNING):
        found = find_films(shaded(30, 30), judge)
    assert found.looked_at == 500 + 450 == len(judge.pairs)
    assert caplog.text == ""


def test_stopping_among_copies_is_told(caplog):
    """A fifth of the pairs are copies, each of its own film: the looks in vain are used up while some are left."""
    thumbnails = shaded(40, 25)

    def score(pairs):
        return np.where(pairs.second % 5 == 0, 0.95, 0.0)

    find_films(thumbnails, score)
    assert "stopped, though the last looks still found some: parts may share more; leave out" in caplog.text


def test_candidates_of_an_image_are_bounded():
    noise = np.random.default_rng(0).integers(0, 256, (1, 64, 64)).repeat(90, axis=0).astype(np.uint8)
    noise[:, :8, :8] = np.arange(90)[:, None, None]
    pairs = find_candidates(noise)
    assert len(pairs.first) <= 90 * NEIGHBOURS < 90 * 89 // 2
    assert (pairs.first < pairs.second).all()
    assert (np.diff(pairs.similarity) <= 0).all()


def test_images_of_one_film_are_no_candidates():
    thumbnails = shaded(20, 3)
    film = np.repeat(np.arange(20), 3)
    assert isinstance(pairs := find_candidates(thumbnails, film), Pairs)
    assert (film[pairs.first] != film[pairs.second]).all()
    few = find_candidates(thumbnails[:6], film[:6])
    assert (few.first.tolist(), few.second.tolist()) == ([0], [3])
