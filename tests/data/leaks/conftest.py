"""Chests of distinct phantoms, what is done to films, and an image store in memory; shared by the tests of the gate."""

import hashlib

import cv2
import numpy as np
import pandas as pd
import pytest

from cxr.data.phantoms.cohort import plan_cohort
from cxr.data.phantoms.radiograph import render
from cxr.data.phantoms.spec import CohortSpec
from cxr.data.phantoms.study import exams
from cxr.imaging.preprocess import Preprocess

PEOPLE = 40


def to_bytes(values):
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def mark(film):
    marked = film.copy()
    cv2.putText(marked, "PORTABLE", (20, 200), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 255, 1)
    return marked


COPIES = {
    "jpeg": lambda film: cv2.imdecode(cv2.imencode(".jpg", film, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], 0),
    "resized": lambda film: cv2.resize(film, (150, 150), interpolation=cv2.INTER_AREA),
    "brighter": lambda film: to_bytes(1.15 * film + 15),
    "contrast": lambda film: to_bytes(255 * (film / 255) ** 0.7),
    "cropped": lambda film: film[8:-6, 5:-11],
    "marker": mark,
}


@pytest.fixture(scope="session")
def films():
    """(40, 256, 256) uint8 frontal films of as many people."""
    plain = {"repeat_patients": 0, "exact_duplicates": 0, "near_duplicates": 0, "second_images": 0}
    spec = CohortSpec(studies=PEOPLE, size=256, seed=11, **plain)
    drawn = (render(exams(plan, spec)[0]).display for plan in plan_cohort(spec))
    return np.stack([to_bytes(255 * display) for display in drawn])


class Drawer:
    """An image store that holds films by path and counts how many it gave out."""

    stored_fingerprint = "drawer"

    def __init__(self, size=(192, 192)):
        self.films, self.opened, self.preprocess = {}, 0, Preprocess(size=size)

    def add(self, path, film):
        self.films[path] = self.preprocess.store(film.astype(np.float32) / 255)

    def build(self, paths, hashes):
        return {}

    def open(self, paths, hashes):
        self.opened += len(paths)
        return np.array([self.films[path] for path in paths])


@pytest.fixture
def drawer():
    return Drawer()


@pytest.fixture
def make_table(drawer):
    """make_table(list of (part, film)): a table of samples whose images lie in the drawer, one patient each."""

    def make(rows):
        for number, (_, film) in enumerate(rows):
            drawer.add(f"/films/{number:03d}", film)
        count = range(len(rows))
        return pd.DataFrame(
            {
                "sample_id": [f"s{number:03d}" for number in count],
                "image_path": [f"/films/{number:03d}" for number in count],
                "content_hash": [hashlib.sha256(str(number).encode()).hexdigest() for number in count],
                "patient_id": [f"p{number}" for number in count],
                "study_id": [f"t{number}" for number in count],
                "sop_instance_uid": [f"1.2.{number}" for number in count],
                "split": [part for part, _ in rows],
            }
        )

    return make
