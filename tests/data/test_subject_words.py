import pytest

from cxr.data.subject_words import find_subject


@pytest.mark.parametrize(
    ("words", "subject"),
    [
        ({}, "maybe_chest"),
        ({"modality": "DX", "object_name": "Digital X-Ray Image Storage - For Presentation"}, "maybe_chest"),
        ({"modality": "OT", "object_name": "Secondary Capture Image Storage", "body_part": "CHEST"}, "maybe_chest"),
        ({"body_part": "PORT CHEST"}, "maybe_chest"),
        ({"body_part": "UNKNOWN"}, "maybe_chest"),
        ({"series_description": "Chest with left arm"}, "maybe_chest"),
        ({"series_description": "routine"}, "maybe_chest"),
        ({"object_name": "1.2.840.113619.4.26"}, "maybe_chest"),
        ({"modality": "CT", "body_part": "CHEST"}, "no_radiograph"),
        ({"object_name": "12-lead ECG Waveform Storage"}, "no_radiograph"),
        ({"modality": "CT", "body_part": "HEAD"}, "no_radiograph"),
        ({"modality": "CR", "body_part": "HAND"}, "elsewhere"),
        ({"modality": "CR", "series_description": "left tibia"}, "elsewhere"),
    ],
)
def test_what_a_header_says(words, subject):
    silent = dict.fromkeys(("modality", "object_name", "body_part", "series_description"))
    assert find_subject(**{**silent, **words}) == subject
