import asyncio
import errno
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from cxr.errors import ImageError
from cxr.imaging.image import read_pixels
from cxr.imaging.preprocess import Preprocess
from cxr.inference.intake import Told
from cxr.serving.decoder import _answer
from cxr.serving.decoding import Decoders, NoDecoderError, _read_head
from cxr.serving.settings import Limits

from ..imaging.dicom_files import make_dataset, save
from .conftest import to_png

PREPROCESSES = [Preprocess(size=(16, 16)), Preprocess(size=(32, 24), normalizer="unit", precision="uint16")]
LIMITS = Limits(seconds=60, decode_seconds=60, max_pixels=10_000, max_file_bytes=19_000)


@pytest.fixture(scope="module")
def decoders():
    made = Decoders(PREPROCESSES, 1, LIMITS)
    yield made
    made.close()


def decode(decoders, content, wanted=(0, 1)):
    return asyncio.run(decoders.take_in(content, wanted))


def process_of(decoders):
    return decoders._all[0]._process


def test_a_dicom_file_is_stored_as_everywhere(decoders, tmp_path):
    ramp = np.linspace(0, 4095, 40 * 50).reshape(40, 50).astype(np.uint16)
    path = save(tmp_path / "a.dcm", make_dataset(ramp, bits=12, ViewPosition="LL", Modality="CT"), ramp)
    found = decode(decoders, path.read_bytes(), (1, 0))
    assert (found.shape, found.told) == ((40, 50), Told("other", "no_radiograph"))
    for stored, preprocess in zip(found.stored, reversed(PREPROCESSES), strict=True):
        np.testing.assert_array_equal(stored, preprocess.store(read_pixels(path)))


def test_what_is_no_image_leaves_the_process_alone(decoders, png):
    before = process_of(decoders).pid
    with pytest.raises(ImageError, match="expected a DICOM, PNG, JPEG, TIFF or BMP image"):
        decode(decoders, b"no image")
    with pytest.raises(ImageError, match="at most 10000 pixels"):
        decode(decoders, to_png(np.zeros((101, 100))))
    assert decode(decoders, png).shape == (60, 40)
    assert process_of(decoders).pid == before


def test_a_process_that_died_at_rest_is_replaced(decoders, png):
    process_of(decoders).kill()
    process_of(decoders).join()
    assert decode(decoders, png).shape == (60, 40)


@contextmanager
def hurried(decoders):
    """An image may take 0.2 s, which settings cannot say."""
    limits = replace(LIMITS)
    object.__setattr__(limits, "decode_seconds", 0.2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoders._all[0], "_limits", limits)
        yield


def check_that_it_is_too_slow(decoders, content, rescue):
    """Without a deadline of its own it would wait until it is rescued, and then say something else."""
    timer = threading.Timer(20, rescue)
    timer.start()
    with hurried(decoders), pytest.raises(ImageError, match=r"decoded in 0\.2 s, this one took longer"):
        decode(decoders, content, (0,))
    timer.cancel()


@pytest.mark.parametrize("size", [100, 4 * 2**20], ids=["a small file", "more than a connection keeps"])
def test_a_process_that_hangs_costs_its_image(decoders, png, size):
    stopped = process_of(decoders).pid
    os.kill(stopped, signal.SIGSTOP)
    check_that_it_is_too_slow(decoders, bytes(size), lambda: os.kill(stopped, signal.SIGKILL))
    assert decode(decoders, png).shape == (60, 40)


@contextmanager
def another_side(decoders):
    """The other side of a connection that takes the place of the process's own."""
    ours, theirs = multiprocessing.Pipe()
    before, decoders._all[0]._connection = decoders._all[0]._connection, ours
    with before, theirs:
        yield theirs


def test_a_process_that_begins_to_answer_costs_its_image(decoders, png):
    with another_side(decoders) as side:

        def begin():
            for _ in range(2):  # the indices, the file
                side.recv_bytes()
            os.write(side.fileno(), (100).to_bytes(4, "big"))  # so many bytes come, but do not

        answering = threading.Thread(target=begin)
        answering.start()
        check_that_it_is_too_slow(decoders, png, side.close)
        answering.join()
    assert decode(decoders, png).shape == (60, 40)


def test_a_process_that_says_what_nobody_asked_is_replaced(decoders, png):
    decode(decoders, png)
    with another_side(decoders) as side:
        side.send_bytes(b'{"error": "of another image"}')
        assert decode(decoders, png).shape == (60, 40)


def test_a_start_that_fails_is_made_up_for_by_the_next_image(decoders, png, monkeypatch):
    def fail(process):
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    def count_open_files():
        with pytest.raises(NoDecoderError, match="expected a process .* gives none at the moment .*; try again later"):
            decode(decoders, png)
        return len(list(Path("/proc/self/fd").iterdir()))

    process_of(decoders).kill()
    process_of(decoders).join()
    with monkeypatch.context() as patch:
        patch.setattr(ForkServerProcess, "start", fail)
        assert count_open_files() == count_open_files()
    assert decode(decoders, png).shape == (60, 40)


def test_the_kernel_ends_a_decoder_before_anything_else(decoders, png):
    decode(decoders, png)
    assert Path(f"/proc/{process_of(decoders).pid}/oom_score_adj").read_text().strip() == "1000"


def test_a_file_that_inflates_beyond_the_limit(decoders, tmp_path):
    stored = np.zeros((100, 100), np.uint16)
    path = save(tmp_path / "a.dcm", make_dataset(stored), stored, DeflatedExplicitVRLittleEndian)
    with pytest.raises(ImageError, match="at most 19000 bytes once inflated"):
        decode(decoders, path.read_bytes())


def test_a_process_that_crashes_costs_its_image(decoders, png):
    async def crash():
        os.kill(process_of(decoders).pid, signal.SIGSTOP)
        asked = asyncio.create_task(decoders.take_in(png, (0,)))
        await asyncio.sleep(0.1)
        os.kill(process_of(decoders).pid, signal.SIGKILL)
        await asked

    with pytest.raises(ImageError, match="crashed or needed more than 2048 MiB"):
        asyncio.run(crash())
    assert decode(decoders, png).shape == (60, 40)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_signals_of_the_terminal_end_no_decoding(decoders, png, sent):
    before = process_of(decoders).pid
    os.kill(before, sent)
    assert decode(decoders, png).shape == (60, 40)
    assert process_of(decoders).pid == before


@pytest.mark.slow
def test_memory_is_limited():
    large = to_png(np.random.default_rng(0).integers(0, 256, (4000, 4000)))
    roomy = replace(LIMITS, max_pixels=10**8, max_file_bytes=10**8)
    for limits, fits in ((roomy, True), (replace(roomy, decoder_bytes=64 * 2**20), False)):
        decoders = Decoders(PREPROCESSES, 1, limits)
        if fits:
            assert decode(decoders, large).shape == (4000, 4000)
        else:
            with pytest.raises(ImageError, match="MemoryError|needed more than 64 MiB"):
                decode(decoders, large)
        decoders.close()


def test_closing_ends_the_processes():
    decoders = Decoders(PREPROCESSES, 2, LIMITS)
    sentinels = [one._process.sentinel for one in decoders._all]
    watched = [os.dup(one) for one in sentinels]
    decoders.close()
    ended = [multiprocessing.connection.wait([one], timeout=20) for one in watched]
    for one in watched:
        os.close(one)
    assert all(ended)


@pytest.mark.parametrize(
    "head",
    [
        b"no json", b"[]", b"{}", b"null", b"[" * 8000, b'{"shape": [1, 2], "view": "pa"}',
        *(
            json.dumps({"shape": [1, 2], "view": "pa", "subject": "elsewhere", "frames": 1} | wrong).encode()
            for wrong in ({"shape": [1]}, {"shape": [1, "a"]}, {"shape": [0, 2]}, {"shape": 3}, {"view": "x"},
                          {"shape": [float("inf"), 1]}, {"subject": "DOE"}, {"frames": "DOE"})
        ),
    ],
)  # fmt: skip
def test_a_decoder_is_not_believed(head):
    with pytest.raises(OSError, match="not what a decoder says"):
        _read_head(head)


def test_pixels_of_another_size_are_not_taken(decoders):
    ours, theirs = multiprocessing.Pipe()
    before, decoders._all[0]._connection = decoders._all[0]._connection, ours
    theirs.send_bytes(json.dumps({"shape": [1, 1], "view": "pa", "subject": "maybe_chest", "frames": 1}).encode())
    theirs.send_bytes(bytes(7))
    with pytest.raises(OSError, match="not the pixels that were asked for"):
        decoders._all[0]._receive(PREPROCESSES[:1])
    decoders._all[0]._connection = before


def test_an_error_is_bounded_and_names_no_place():
    ours, theirs = multiprocessing.Pipe()
    _answer(theirs, b"\x89PNG\r\n\x1a\n broken", PREPROCESSES)
    told = json.loads(ours.recv_bytes())
    assert told["error"].startswith("expected")
    assert "/proc" not in told["error"]
