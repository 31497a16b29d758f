"""Images read once for all nets of a model, and maps of what the model looks at: those of its nets, averaged.

The maps of nets with other sizes or proportions are brought onto the picture and from there into one frame, that of
the first net. Knows nothing of how a net's maps are made.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr.errors import ConfigError
from cxr.evaluation.localisation import Boxes
from cxr.imaging.image import read_pixels
from cxr.imaging.preprocess import Preprocess, Stored
from cxr.imaging.resize import fit_to_size, undo_fit
from cxr.inference.ensemble_predictor import list_members
from cxr.inference.net_predictor import NetPredictor
from cxr.inference.net_shares import NetShare, average_maps, find_nets
from cxr.inference.predictor import Predictor, Probs
from cxr.inference.saliency import Maps
from cxr.inference.sanity import Explain as Method

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Pictures:
    """N images as a model sees them.

    Attributes:
        shapes: (H, W) of each before preprocessing.
        stored: Preprocessing of a net -> (N, h, w).
        boxes: In pixels of `frame_of` the model; None where it is not known whether there are any.
        probs: (N, K) what the model says.
    """

    shapes: list[tuple[int, int]]
    stored: Mapping[Preprocess, Stored]
    boxes: list[Boxes | None]
    probs: Probs


def nets_of(predictor: Predictor) -> list[NetPredictor]:
    """The nets of a model, in order.

    Raises:
        ConfigError: It has none, so that there is nothing to make maps of.
    """
    nets = [member for member in list_members(predictor) if isinstance(member, NetPredictor)]
    if not nets:
        raise ConfigError("expected a model with a net in it, got one without, which has no maps; choose another run")
    return nets


def frame_of(predictor: Predictor) -> Preprocess:
    """The preprocessing in whose pixels maps and boxes are told: that of the first net.

    Raises:
        ConfigError: As of `nets_of`.
    """
    return nets_of(predictor)[0].preprocess


def read_pictures(predictor: Predictor, rows: pd.DataFrame) -> Pictures:
    """Read the images of rows with `image_path` and maybe `boxes`, each file once.

    Raises:
        ImageError: A file gives no image.
        ConfigError: As of `nets_of`.
    """
    frame = frame_of(predictor)
    kinds = {net.preprocess for net in nets_of(predictor)}
    stored = {kind: np.empty((len(rows), *kind.size), kind.precision) for kind in kinds}
    found = Pictures([], stored, [], np.empty((len(rows), len(predictor.class_names))))
    given = rows["boxes"] if "boxes" in rows else [None] * len(rows)
    for index, (path, drawn) in enumerate(zip(rows["image_path"], given, strict=True)):
        pixels = read_pixels(path)
        for kind, images in stored.items():
            images[index] = kind.store(pixels)
        found.shapes.append((pixels.shape[0], pixels.shape[1]))
        found.boxes.append(None if drawn is None else frame.place_boxes(drawn, found.shapes[-1]))
        found.probs[index] = predictor.predict_pixels([pixels])[0]
    return found


def make_mean_maps(predictor: Predictor, method: Method, pictures: Pictures, labels: Labels) -> Maps:
    """What speaks for a class in each picture: the maps of the nets that speak of it, by their shares.

    Args:
        predictor: A net or an ensemble; its members that are no nets are left out.
        method: Makes the maps of one net.
        pictures: Of `read_pictures` for this model.
        labels: (N,) the class to explain in each.

    Returns:
        (N, h, w) float32 in [0, 1] in pixels of `frame_of` the model, the highest value of each 1, or all 0.
    """
    frame = frame_of(predictor)
    maps = np.zeros((len(labels), *frame.size), np.float32)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        nets = find_nets(predictor, int(label))
        if nets:
            make = partial(_maps_of_net, method=method, pictures=pictures, rows=rows, frame=frame)
            maps[rows] = average_maps(nets, make)
    return maps


def _maps_of_net(one: NetShare, method: Method, pictures: Pictures, rows: NDArray[np.int64], frame: Preprocess) -> Maps:
    own = one.net.preprocess
    maps = method(one.net, pictures.stored[own][rows], np.full(len(rows), one.label))
    if (own.size, own.aspect) == (frame.size, frame.aspect):
        return maps
    shapes = [pictures.shapes[row] for row in rows]
    whole = (undo_fit(one_map, shape, own.aspect) for one_map, shape in zip(maps, shapes, strict=True))
    return np.stack([fit_to_size(one_map, frame.size, frame.aspect) for one_map in whole])


def leading_net(predictor: Predictor, pictures: Pictures, labels: Labels) -> tuple[NetPredictor, Stored, Labels]:
    """The net with the largest share in the first row's class, what it sees, and the classes among its own.

    A row whose class it does not know, in one-against-the-rest, counts as of the one that it does.
    """
    lead = max(find_nets(predictor, int(labels[0])), key=lambda one: one.share)
    names = lead.net.class_names
    told = [predictor.class_names[label] for label in labels]
    own = [names.index(name) if name in names else lead.label for name in told]
    return lead.net, pictures.stored[lead.net.preprocess], np.asarray(own, dtype=np.int64)


def describe_maps(predictor: Predictor) -> list[str]:
    """What a reader of averaged maps must know, in sentences; nothing of a single net."""
    members, nets = list_members(predictor), nets_of(predictor)
    if members == nets and len(nets) == 1:
        return []
    notes = [
        f"The maps are means of those of {len(nets)} nets by their shares in the ensemble. The checks of the method "
        "are made on the net with the largest share."
    ]
    if len(nets) < len(members):
        notes.append(f"{len(members) - len(nets)} members are no nets, have no maps, and are left out.")
    return notes
