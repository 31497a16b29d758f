"""Embeddings that are computed once: a file for each net, in it a row for each image by the hash of its bytes.

Knows nothing of labels, or of what is learnt from embeddings. It does not guarantee the last bit: a row may have been
computed among other images, or on another device.
"""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from cxr.data.image_store import StoredImages
from cxr.imaging.preprocess import Preprocess
from cxr.inference.embedding import Embeddings
from cxr.models.head import Classifier

log = logging.getLogger(__name__)

IMAGES_AT_ONCE = 16
IMAGES_PER_WRITE = 512
"""A killed process loses no more than these."""

Rows = dict[str, Embeddings]


def embed_images(
    net: Classifier, preprocess: Preprocess, stored: StoredImages, hashes: Sequence[str], folder: Path
) -> Embeddings:
    """Put images through the backbone of a net, those that are not in the cache.

    Args:
        net: Is put into evaluation mode; works on the device where its weights are.
        preprocess: Complete, the one that made the stored images.
        stored: N images, at least one.
        hashes: The hash of each one's file.
        folder: Of the cache; a file in it is named by `fingerprint`.

    Returns:
        (N, F) the input of the net's head.
    """
    path = folder / f"{fingerprint(net, preprocess)}.npz"
    known = _read(path)
    row_of = {key: row for row, key in enumerate(hashes)}
    missing = [key for key in row_of if key not in known]
    for start in range(0, len(missing), IMAGES_PER_WRITE):
        keys = missing[start : start + IMAGES_PER_WRITE]
        rows = np.array([row_of[key] for key in keys], dtype=np.int64)
        known |= dict(zip(keys, _compute(net, preprocess, stored, rows), strict=True))
        _write(path, known)
    return np.stack([known[key] for key in hashes])


def fingerprint(net: Classifier, preprocess: Preprocess) -> str:
    """Hash of all that decides an embedding: the backbone's layers and weights, and the preprocessing; 32 digits."""
    digest = hashlib.sha256(str(net.backbone).encode())
    digest.update(json.dumps([preprocess.stored_fingerprint, preprocess.to_dict()], sort_keys=True).encode())
    for name, tensor in net.backbone.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


@torch.inference_mode()
def _compute(net: Classifier, preprocess: Preprocess, stored: StoredImages, rows: np.ndarray) -> Embeddings:
    net.eval()
    device = next(net.parameters()).device
    batches = [rows[start : start + IMAGES_AT_ONCE] for start in range(0, len(rows), IMAGES_AT_ONCE)]
    images = (torch.from_numpy(preprocess.finish(stored[batch])).to(device) for batch in batches)
    return np.concatenate([net.backbone(batch).float().cpu().numpy() for batch in images])


def _read(path: Path) -> Rows:
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(zip(arrays["hashes"].tolist(), arrays["embeddings"], strict=True))
    except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
        log.warning("the embeddings in %s cannot be read (%s); they are computed again", path, error)
        return {}


def _write(path: Path, known: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with part.open("wb") as stream:
        np.savez(stream, hashes=np.array(list(known)), embeddings=np.stack(list(known.values())))
    part.replace(path)
