from pathlib import Path

import pytest

from cxr.errors import ConfigError
from cxr.serving.settings import Limits, Settings


@pytest.mark.parametrize("name", ["workers", "decoders", "requests_per_second"])
def test_counts_are_at_least_one(name):
    with pytest.raises(ConfigError, match=f"expected {name} to be an integer of at least 1, but got 0"):
        Settings(bundle=Path("b"), key_file=None, **{name: 0})


def test_a_port_is_one():
    with pytest.raises(ConfigError, match="expected a port from 0 to 65535, got 65536"):
        Settings(bundle=Path("b"), key_file=None, port=65536)


def test_limits_are_at_least_one():
    with pytest.raises(ConfigError, match=r"limits\.max_files"):
        Limits(max_files=0)


def test_an_image_takes_no_longer_than_its_request():
    with pytest.raises(ConfigError, match=r"decode_seconds of at most seconds \(5\), got 15"):
        Limits(seconds=5)


def test_a_request_fits_into_the_queue():
    assert Limits(max_files=8, queue_length=8).queue_length == 8
    with pytest.raises(ConfigError, match=r"images of one request \(8\), got 7; raise --queue, or lower --max-files"):
        Limits(max_files=8, queue_length=7)


def test_a_request_fits_into_the_memory():
    assert Limits(max_body_bytes=8, max_waiting_bytes=8).max_waiting_bytes == 8
    with pytest.raises(ConfigError, match=r"at least one request \(8\), got 7; raise it, or lower max_body_bytes"):
        Limits(max_body_bytes=8, max_waiting_bytes=7)


def test_the_secret_is_not_shown():
    settings = Settings(bundle=Path("b"), key_file=None)
    assert settings.session_secret not in repr(settings)
