import numpy as np
import pytest
import torch

from cxr.imaging.preprocess import Preprocess
from cxr.inference import embedding_cache
from cxr.inference.embedding_cache import embed_images, fingerprint
from cxr.models.build import build_net

PREPROCESS = Preprocess(size=(32, 32), normalizer="unit")
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 32, 32)).astype(np.uint8)
HASHES = list("abcdea")
IMAGES[5] = IMAGES[0]


class Counting:
    """Stored images that remember which rows were asked for."""

    def __init__(self):
        self.asked = []

    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, rows):
        self.asked += rows.tolist()
        return IMAGES[rows]


@pytest.fixture
def net():
    torch.manual_seed(0)
    return build_net("custom_cnn", 2, filters_1=4, filters_2=4, filters_3=4, filters_4=6, drop_rate=0.5)


def test_embeddings_are_those_of_the_backbone_and_computed_once(net, tmp_path):
    first, again = Counting(), Counting()
    embeddings = embed_images(net, PREPROCESS, first, HASHES, tmp_path / "new")
    with torch.inference_mode():
        expected = net.eval().backbone(torch.from_numpy(PREPROCESS.finish(IMAGES))).numpy()
    np.testing.assert_allclose(embeddings, expected, atol=1e-6)
    assert sorted(first.asked) in ([0, 1, 2, 3, 4], [1, 2, 3, 4, 5])  # the same content once
    np.testing.assert_array_equal(
        embed_images(net, PREPROCESS, again, HASHES[::-1], tmp_path / "new"), embeddings[::-1]
    )
    assert again.asked == []


def test_what_is_missing_is_added(net, tmp_path):
    embed_images(net, PREPROCESS, Counting(), HASHES[:2], tmp_path)
    images = Counting()
    assert embed_images(net, PREPROCESS, images, HASHES, tmp_path).shape == (6, 6)
    assert sorted(images.asked) == [2, 3, 4]


def test_a_killed_process_loses_only_its_last_images(net, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_cache, "IMAGES_PER_WRITE", 2)
    monkeypatch.setattr(embedding_cache, "IMAGES_AT_ONCE", 1)

    class Failing(Counting):
        def __getitem__(self, rows):
            if 3 in rows:
                raise KeyboardInterrupt
            return super().__getitem__(rows)

    with pytest.raises(KeyboardInterrupt):
        embed_images(net, PREPROCESS, Failing(), list("abcdef"), tmp_path)
    images = Counting()
    embed_images(net, PREPROCESS, images, list("abcdef"), tmp_path)
    assert images.asked == [2, 3, 4, 5]


@pytest.mark.parametrize("content", [b"", b"PK no archive", None], ids=["empty", "damaged", "other arrays"])
def test_a_damaged_file_is_told_and_computed_again(net, tmp_path, caplog, content):
    path = tmp_path / f"{fingerprint(net, PREPROCESS)}.npz"
    if content is None:
        np.savez(path, other=np.zeros(3))
    else:
        path.write_bytes(content)
    images = Counting()
    embed_images(net, PREPROCESS, images, HASHES, tmp_path)
    assert "cannot be read" in caplog.text
    assert len(images.asked) == 5


def test_whatever_changes_an_embedding_changes_the_name_of_the_file(net):
    names = [fingerprint(net, PREPROCESS), fingerprint(net, Preprocess(size=(32, 32), normalizer="clahe")),
             fingerprint(net, Preprocess(size=(32, 32), normalizer="unit", low=-1.0))]  # fmt: skip
    twin = build_net("custom_cnn", 2, filters_1=4, filters_2=4, filters_3=4, filters_4=6, activation="tanh")
    twin.load_state_dict(net.state_dict(), strict=True)
    names.append(fingerprint(twin, PREPROCESS))
    with torch.no_grad():
        net.backbone.block1.norm.running_mean += 1
    names.append(fingerprint(net, PREPROCESS))
    assert len(set(names)) == 5


def test_another_head_is_no_other_backbone(net):
    before = fingerprint(net, PREPROCESS)
    torch.nn.init.ones_(net.head.output.weight)
    assert fingerprint(net, PREPROCESS) == before
