import base64
import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr.errors import ImageError
from cxr.serving.bodies import MOST_LISTS, MOST_VALUES, Form, Memory, parse_json, read_json
from cxr.serving.refusal import Refusal
from cxr.serving.settings import Limits

LIMITS = Limits(max_files=2)


def encode(files, field="files") -> bytes:
    """A form as RFC 7578 writes it."""
    head = f'Content-Disposition: form-data; name="{field}"; filename="x"\r\nContent-Type: image/png\r\n\r\n'.encode()
    return b"".join(b"--abc\r\n" + head + file + b"\r\n" for file in files) + b"--abc--\r\n"


def parse(content: bytes, cuts=(), most=9) -> list[bytes]:
    form = Form(b"abc", most)
    places = [0, *sorted(cuts), len(content)]
    for start, end in itertools.pairwise(places):
        form.write(content[start:end])
    return form.finish()


@given(files=st.lists(st.binary(max_size=60).filter(lambda file: b"--abc" not in file), min_size=1, max_size=3),
       cuts=st.lists(st.integers(0, 300), max_size=5))  # fmt: skip
def test_files_come_whole_however_the_body_is_cut(files, cuts):
    assert parse(encode(files), cuts) == files


def test_a_large_file_stays_in_memory(monkeypatch):
    monkeypatch.setattr("tempfile._TemporaryFileWrapper.__init__", lambda *_: pytest.fail("a file on disk"))
    monkeypatch.setattr("tempfile.TemporaryFile", lambda *_, **__: pytest.fail("a file on disk"))
    assert parse(encode([bytes(3 * 2**20)])) == [bytes(3 * 2**20)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no form", "bytes that are none"),
        (encode([b"1"])[:-6], "one without an end"),
        (encode([b"1"], field="other"), "expected only fields 'files'"),
    ],
)
def test_broken_forms(content, said):
    with pytest.raises(Refusal, match=said) as caught:
        parse(content)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "header",
    [b"X-Note: " + b"a" * 4_000_000, b"a" * 4_000_000, b"X-Note: 1\r\n" * 400_000],
    ids=["value", "name", "many"],
)
def test_headers_of_megabytes_are_refused_at_their_first_bytes(header):
    form = Form(b"abc", 1)
    with pytest.raises(Refusal, match="bytes that are none") as caught:
        form.write(b"--abc\r\n" + header[:10_000])
    assert caught.value.status == 400


@pytest.mark.parametrize(("boundary", "said"), [(b"", "no boundary"), (b"x" * 5000, "a boundary that is too long")])
def test_boundaries(boundary, said):
    with pytest.raises(Refusal, match=said):
        Form(boundary, 1)


@pytest.mark.parametrize("read", [lambda: parse(encode([b"1"] * 3), most=2),
                                  lambda: read_json(b'{"images": [1, 2, 3]}', LIMITS)])  # fmt: skip
def test_too_many_images(read):
    with pytest.raises(Refusal, match="at most 2 images") as caught:
        read()
    assert caught.value.status == 400


def test_base64_and_pixels():
    images = [{"name": "not looked at", "base64": base64.b64encode(b"file").decode()},
              {"pixels": [[0, 51], [102, 255]], "max": 255}]  # fmt: skip
    file, pixels = read_json(json.dumps({"images": images}).encode(), LIMITS)
    assert file == b"file"
    np.testing.assert_allclose(pixels, [[0, 0.2], [0.4, 1]])
    assert pixels.dtype == np.float32


def test_the_address_of_an_image():
    assert read_json(b'{"image_url": "https://example.org/a.png"}', LIMITS) == "https://example.org/a.png"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("image", "said"),
    [
        ({"base64": "%%"}, "expected base64"),
        ({"pixels": [[0, 2]], "max": 1}, 'expected pixels from 0 to "max"'),
        ({"pixels": [[-1, 1]], "max": 1}, 'expected pixels from 0 to "max"'),
        ({"pixels": [[0, 10**400]], "max": 1}, 'expected pixels from 0 to "max"'),
        ({"pixels": [[0, 1e300]], "max": 1e-300}, 'expected pixels from 0 to "max"'),
        ({"pixels": [[1, 2], [3]], "max": 4}, "expected rows of one length"),
        ({"pixels": [[3, 3], [3, 3]], "max": 4}, "at least two grey values"),
    ],
)
def test_an_image_that_is_none_costs_only_itself(image, said):
    (found,) = read_json(json.dumps({"images": [image]}).encode(), LIMITS)
    assert isinstance(found, ImageError)
    assert said in str(found)


@pytest.mark.parametrize(
    "body",
    [
        "", "[]", "nul", "[" * 100_000, '{"images": 1}', '{"images": [], "more": 1}', '{"image_url": 1}', "\xff",
        '{"images": [{}]}', '{"images": [{"base64": 1}]}', '{"images": [{"pixels": [[1]]}]}', '{"images": [1]}',
        '{"images": [{"pixels": [[1], []], "max": 4}]}', '{"images": [{"pixels": [], "max": 4}]}',
        '{"images": [{"pixels": [[true, 1]], "max": 4}]}', '{"images": [{"pixels": [[1, 2]], "max": 0}]}',
        '{"images": [{"pixels": [[NaN, 2]], "max": 4}]}', '{"images": [{"pixels": [["1", 2]], "max": 4}]}',
    ],
)  # fmt: skip
def test_other_json(body):
    with pytest.raises(Refusal, match="expected .*, got something else; see GET /openapi.json") as caught:
        read_json(body.encode("latin-1"), LIMITS)
    assert caught.value.status == 400


def test_json_of_too_many_values_is_not_parsed():
    with pytest.raises(Refusal, match=f"at most {MOST_VALUES} values"):
        parse_json(b"," * (MOST_VALUES + 1))
    nested = b"[" * 500 + b"]" * 500
    with pytest.raises(Refusal, match=f"and {MOST_LISTS} lists"):
        parse_json(b"[" + b",".join([nested] * (MOST_LISTS // 500)) + b"]")


def test_memory_is_given_back():
    memory = Memory(10)
    with memory.lend() as one:
        one.take(6)
        with memory.lend() as other, pytest.raises(Refusal, match="together 10 bytes at a time") as caught:
            other.take(5)
        assert (caught.value.status, caught.value.headers["Retry-After"]) == (429, "1")
        assert memory.held == 6
    assert memory.held == 0
