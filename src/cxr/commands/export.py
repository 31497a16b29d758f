"""What `cxr export` does: a run, an ensemble, an AutoML folder or a bundle -> a bundle that needs no torch.

The graphs are held against what the run said of its images before anything is put in place.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from cxr.commands.export_images import draw_batches, read_batches, read_told, read_training
from cxr.commands.export_loss import Ask, ask_all, ask_both, check_parity, measure_loss
from cxr.commands.run_images import read_config, sample_rows
from cxr.entry import prepare_environment
from cxr.errors import ConfigError, DataError
from cxr.imaging.preprocess import Preprocess
from cxr.inference.bundle import load_bundle
from cxr.inference.bundle_folder import BUNDLE, EXPORT, bundle_version
from cxr.inference.description import DESCRIPTION
from cxr.inference.embedding import OneNet
from cxr.inference.engines import GRAPHS, INT8, ONNX, open_predictor
from cxr.inference.onnx_bundle import CARD, MOBILE, Files, add_int8, read_with_graphs, write_exported
from cxr.inference.onnx_int8 import Images
from cxr.inference.onnx_mobile import make_mobile, open_mobile
from cxr.inference.predictor import Predictor

PARITY_IMAGES = 64
CALIBRATION_IMAGES = 128
SYNTHETIC = "synthetic"
PREDICTIONS, BY_TORCH = "predictions", "torch"


@dataclass(frozen=True)
class Export:
    """Settings of the command.

    Attributes:
        run: Folder of a run, of an ensemble or of an AutoML plan, or a bundle.
        out: The bundle to write; None is `EXPORT` in that folder.
        int8: Also make graphs of 8-bit integers.
        mobile: Also make the one file for phones.
        overrides: Config values that are others than in the run, as ``data.root=PATH``.
    """

    run: Path
    out: Path | None
    int8: bool
    mobile: bool
    overrides: Sequence[str]


@dataclass(frozen=True)
class Source:
    """What is exported.

    Attributes:
        bundle: The bundle.
        predictor: Its nets run by torch.
        config: Of the run; None of a bundle alone.
        run: Its folder.
    """

    bundle: Path
    predictor: Predictor
    config: DictConfig | None
    run: Path


def export(settings: Export) -> tuple[dict[str, Any], Path]:
    """Export a model.

    Returns:
        What was measured, as it stands in ``bundle.json``, and the bundle.

    Raises:
        CxrError: The run or its images cannot be used, the graphs answer otherwise, or the net is too large.
    """
    prepare_environment()
    source = open_source(settings)
    out = settings.run / EXPORT if settings.out is None else settings.out
    check_place(out)
    measured: dict[str, Any] = {BUNDLE: bundle_version(source.bundle)}
    files = read_with_graphs(source.bundle) | read_card(source.run)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as place:
        draft = Path(place) / "draft"
        write_exported(files, draft, {})
        measured["parity"] = measure_parity(source, open_predictor(draft, ONNX))
        if settings.mobile:
            files[MOBILE], measured["mobile"] = export_mobile(source, draft, files)
        if settings.int8:
            files = add_int8(files, partial(read_calibration, source))
            write_exported(files, draft, {})
            measured["int8"] = measure_int8(source, draft)
        write_exported(files, out, measured)
    return measured, out


def open_source(settings: Export) -> Source:
    """The model in a folder.

    Raises:
        CxrError: There is none, or it is not one that can be used so.
    """
    run, alone = settings.run, (settings.run / DESCRIPTION).is_file()
    bundle = run if alone else run / BUNDLE
    if not (bundle / DESCRIPTION).is_file():
        raise DataError(f"expected a finished run or a bundle, but {run} has no bundle; give the folder of a run")
    if alone and (settings.int8 or settings.overrides):
        raise ConfigError(
            "expected the folder of a run, whose images --int8 and overrides are about, but "
            f"{run} is a bundle alone; give the run's folder"
        )
    config = None if alone else read_config(run, settings.overrides)
    return Source(bundle, load_bundle(bundle), config, run)


def check_place(out: Path) -> None:
    """Make the folder above, and refuse to replace what is no bundle.

    Raises:
        DataError: It cannot be made, or something else lies there.
    """
    if out.exists() and not (out / DESCRIPTION).is_file():
        raise DataError(f"expected a new folder or a bundle to replace, but {out} is neither; choose another --out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent):
            pass
    except OSError as error:
        raise DataError(
            f"expected a folder to write to, but {out.parent} is none ({error.strerror}); choose another --out"
        ) from error


def read_card(run: Path) -> Files:
    """The model card of a run as a file of the bundle, where it has one."""
    card = run / CARD
    return {CARD: card.read_bytes()} if card.is_file() else {}


def measure_parity(source: Source, exported: Predictor) -> dict[str, Any]:
    """Hold the graphs against the run's own predictions, or where these are of other models against torch.

    Raises:
        WeightsError: A probability differs by more than is allowed.
        DataError: The images are not there.
    """
    asked, torch = ask_of(exported), ask_of(source.predictor)
    if source.config is None:
        batches = list(draw_batches(PARITY_IMAGES, source.predictor.preprocesses))
        wanted, against, images = ask_all(torch, batches), BY_TORCH, SYNTHETIC
    else:
        told = read_told(source.run, source.config, source.predictor, ("test", "val", "oof")).sample(PARITY_IMAGES)
        batches = list(read_batches(told.rows["image_path"].tolist(), source.predictor.preprocesses))
        wanted = told.probs if told.by_bundle else ask_all(torch, batches)
        against, images = (PREDICTIONS if told.by_bundle else BY_TORCH), told.part
    said = f"the run's own predictions of {images}" if against == PREDICTIONS else "what torch says"
    found = ask_all(asked, batches)
    return {"against": against, "images": images, "n": len(found), "largest": check_parity(found, wanted, said)}


def read_calibration(source: Source, preprocess: Preprocess) -> Iterator[Images]:
    """Training images as a net takes them."""
    assert source.config is not None  # `open_source` refuses a bundle alone
    rows = sample_rows(read_training(source.run, source.config), CALIBRATION_IMAGES)
    for (stored,) in read_batches(rows["image_path"].tolist(), [preprocess]):
        yield preprocess.finish(stored)


def measure_int8(source: Source, draft: Path) -> dict[str, Any]:
    """What the integer graphs of a bundle cost."""
    plain, found = (ask_of(open_predictor(draft, engine)) for engine in (ONNX, INT8))
    return {"calibration_images": CALIBRATION_IMAGES, **compare(source, plain, found)}


def export_mobile(source: Source, draft: Path, files: Mapping[str, bytes]) -> tuple[bytes, dict[str, Any]]:
    """The one file, and what its narrow weights cost.

    Raises:
        ConfigError: It is not one net, or too large.
    """
    predictor = source.predictor
    if not isinstance(predictor, OneNet):
        raise ConfigError(
            "expected one net for --mobile, got an ensemble or a model without a net; export the run of one net"
        )
    content = make_mobile(files[GRAPHS[ONNX]], predictor)
    ask, preprocess = open_mobile(content), predictor.preprocess
    loss = compare(source, ask_of(open_predictor(draft, ONNX)), lambda batch: ask(preprocess.finish(batch[0])))
    return content, {"megabytes": len(content) / 1e6, **loss}


def compare(source: Source, plain: Ask, found: Ask) -> dict[str, Any]:
    """What another arithmetic costs on the whole validation part of a run; of a bundle alone on random images."""
    predictor = source.predictor
    if source.config is None:
        tables = ask_both(plain, found, draw_batches(PARITY_IMAGES, predictor.preprocesses))
        return {"images": SYNTHETIC, **measure_loss(predictor, *tables, np.full_like(tables[0], np.nan)).to_dict()}
    told = read_told(source.run, source.config, predictor, ("val", "oof"))
    batches = read_batches(told.rows["image_path"].tolist(), predictor.preprocesses)
    tables = ask_both(plain, found, batches)
    return {"images": told.part, **measure_loss(predictor, *tables, told.targets).to_dict()}


def ask_of(predictor: Predictor) -> Ask:
    """The probabilities that a predictor gives for a batch."""
    return lambda batch: predictor.score_stored(batch).probs


def tell(measured: Mapping[str, Any]) -> Iterator[str]:
    """What was measured, a line for each thing."""
    parity = measured["parity"]
    said = "the run's own" if parity["against"] == PREDICTIONS else "torch's"
    yield f"parity: within {parity['largest']:.1g} of {said} probabilities on {parity['n']} {parity['images']} images"
    for kind in ("mobile", "int8"):
        if kind in measured:
            yield f"{kind}: {_tell_loss(measured[kind])}"


def _tell_loss(loss: Mapping[str, Any]) -> str:
    size = f"{loss['megabytes']:.1f} MB, " if "megabytes" in loss else ""
    changes = f"largest change of a probability {loss['largest']:.2g}, mean {loss['mean']:.2g}"
    answers = f"other answers {loss['other_answers']}"
    if loss["other_decisions"] is not None:
        answers += f", other decisions {loss['other_decisions']}"
    areas = loss["auroc"]
    auroc = "" if areas is None else f", AUROC {areas['float']:.4f} -> {areas['export']:.4f}"
    return f"{size}on {loss['n']} {loss['images']} images: {changes}, {answers}{auroc}"
