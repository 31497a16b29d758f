"""Which images of a collection show one film: candidates are looked at closely for as long as copies are found.

Knows nothing of files, parts or of how a pair is looked at. A film with many copies gives more pairs than can be looked
at, so a pair of images that are known to show one film, maybe through others, is passed over: every look that finds a
copy joins two films, and looks that find none are bounded by the number of images.
"""

import logging
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from cxr.data.leaks.candidates import NEIGHBOURS, Ints, Pairs, find_candidates, join_pairs
from cxr.data.leaks.thumbnails import Thumbnails

log = logging.getLogger(__name__)

Scores = npt.NDArray[np.float64]
Score = Callable[[Pairs], Scores]

LINKED = 0.85  # worth keeping two images in one part: costs nothing if wrong
NEAR = 0.90  # two images of one film; see benchmarks/leak_gate.py
_BATCH = 256
_STILL_FINDING = 0.1  # share of the last looks that found copies


class Alike(NamedTuple):
    """Images that show one film.

    Attributes:
        first: (P,) rows, each pair once, `first < second`.
        second: (P,) rows.
        scores: (P,) from LINKED to 1.
        looked_at: Number of pairs that were looked at closely.
    """

    first: Ints
    second: Ints
    scores: Scores
    looked_at: int


def find_films(thumbnails: Thumbnails, score: Score) -> Alike:
    """Look at candidates closely, the most similar first.

    Args:
        thumbnails: (N, 64, 64) uint8.
        score: Gives (P,) scores of the pairs that it is handed.

    Returns:
        The alike pairs. Images of one film are joined by them, directly or through others; at most 1000 + 3 N + 256
        pairs are looked at.
    """
    looks = _Looks(len(thumbnails), score)
    candidates = find_candidates(thumbnails)
    looks.take(candidates, slice(looks.most_in_vain))
    while len(candidates.first):
        looks.go_on(candidates)
        crowded = looks.list_crowded(candidates)
        if not (len(crowded) and looks.may_go_on):
            break
        candidates = find_candidates(thumbnails, looks.films, crowded)
    return looks.collect()


class _Looks:
    """What was looked at so far, and what it showed of `count` images."""

    def __init__(self, count: int, score: Score) -> None:
        self.most_in_vain = 500 + count // 2
        self.films = np.arange(count)
        self._groups = np.arange(count)
        self._score = score
        self._in_vain = 0
        self._seen = Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
        self._scores = np.empty(0)

    @property
    def may_go_on(self) -> bool:
        return self._in_vain < self.most_in_vain

    def go_on(self, candidates: Pairs) -> None:
        """Look at pairs of different films until there are none, or too many looks found nothing."""
        while len(at := self._list_joining(candidates)):
            if not self.may_go_on:
                _warn_if_still_finding(self._scores)
                return
            self.take(candidates, at[: max(self.most_in_vain - self._in_vain, _BATCH)])

    def take(self, candidates: Pairs, at: Ints | slice) -> None:
        """Look at some of the candidates; in vain are those that neither show one film nor join two groups."""
        pairs = Pairs(candidates.first[at], candidates.second[at], candidates.similarity[at])
        scores = self._score(pairs)
        groups = _join(self._groups, pairs, scores >= LINKED)
        found = max(int((scores >= NEAR).sum()), _count(self._groups) - _count(groups))
        self.films, self._groups = _join(self.films, pairs, scores >= NEAR), groups
        self._seen = join_pairs([self._seen, pairs])
        self._scores = np.concatenate([self._scores, scores])
        self._in_vain += len(scores) - found

    def list_crowded(self, candidates: Pairs) -> Ints:
        """Images of whose candidates so many show the same film that there was no place for others."""
        same = self.films[candidates.first] == self.films[candidates.second]
        ends = np.concatenate([candidates.first[same], candidates.second[same]])
        return np.flatnonzero(np.bincount(ends, minlength=len(self.films)) >= NEIGHBOURS)

    def collect(self) -> Alike:
        """The alike pairs."""
        alike = self._scores >= LINKED
        return Alike(self._seen.first[alike], self._seen.second[alike], self._scores[alike], len(self._scores))

    def _list_joining(self, candidates: Pairs) -> Ints:
        """Positions of new pairs of which each, if it is alike, joins two films; those least tried come first."""
        count = len(self.films)
        new = ~np.isin(_keys(candidates, count), _keys(self._seen, count))
        at = np.flatnonzero(new & (self.films[candidates.first] != self.films[candidates.second]))
        ends = self._films_of(Pairs(candidates.first[at], candidates.second[at], candidates.similarity[at]))
        tried = np.sort(_keys(self._films_of(self._seen), count))
        tries = np.searchsorted(tried, _keys(ends, count), "right") - np.searchsorted(tried, _keys(ends, count))
        order = np.lexsort((at, tries))
        _, best = np.unique(_keys(ends, count)[order], return_index=True)
        edges = (ends.first[order][best], ends.second[order][best])
        forest = minimum_spanning_tree(coo_array((best + 1.0, edges), shape=(count, count)).tocsr())
        return at[order[np.sort(forest.data.astype(np.int64)) - 1]]

    def _films_of(self, pairs: Pairs) -> Pairs:
        first, second = np.sort([self.films[pairs.first], self.films[pairs.second]], axis=0)
        return Pairs(first, second, pairs.similarity)


def _join(numbers: Ints, pairs: Pairs, alike: npt.NDArray[np.bool_]) -> Ints:
    """The numbers of films after those of the alike pairs are made one."""
    edges = (numbers[pairs.first[alike]], numbers[pairs.second[alike]])
    graph = coo_array((np.ones(len(edges[0]), dtype=bool), edges), shape=(len(numbers),) * 2)
    _, components = connected_components(graph, directed=False)
    return np.asarray(components[numbers], np.int64)


def _count(numbers: Ints) -> int:
    return len(np.unique(numbers))


def _keys(pairs: Pairs, count: int) -> Ints:
    return pairs.first * count + pairs.second


def _warn_if_still_finding(scores: Scores) -> None:
    if (scores[-_BATCH:] >= LINKED).mean() >= _STILL_FINDING:
        log.warning(
            "looked at %d pairs of images for near copies and stopped, though the last looks still found some: parts "
            "may share more; leave out what was made of one film many times over, such as augmented copies",
            len(scores),
        )
