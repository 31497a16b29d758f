"""The best checkpoint over the parts of the split: tables with calibrated probabilities, metrics, and the report.

Knows Lightning only through the experiment's trainer. What is measured is for `cxr.evaluation` to say.
"""

import logging
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from cxr.data.decoding import StoredArray
from cxr.data.identity import hash_ids
from cxr.data.image_store import StoredImages
from cxr.data.samples import target_names
from cxr.errors import ConfigError
from cxr.evaluation.baselines import fit_baselines
from cxr.evaluation.calibration import fit_scaling, fit_temperature
from cxr.evaluation.gallery import choose_rows
from cxr.evaluation.ledger import hash_config, make_opening, record_opening
from cxr.evaluation.predictions import make_predictions, read_predictions
from cxr.evaluation.report.collect import Options
from cxr.evaluation.report.decisions import describe_abstention, describe_points
from cxr.evaluation.report.material import ledger_path, read_questions, read_run
from cxr.evaluation.report.page import write_report
from cxr.explanation.gallery import draw_gallery
from cxr.inference.bundle import Fitted, load_net
from cxr.inference.combine import to_logits
from cxr.inference.outliers import fit_outliers
from cxr.inference.saliency import make_maps
from cxr.models.head import Classifier
from cxr.models.views import SeveralViews
from cxr.scaling import UNSCALED
from cxr.training.assemble import Experiment
from cxr.training.building import plain
from cxr.training.datamodule import ChestDataModule
from cxr.training.interrupts import interrupts
from cxr.training.metrics import Question, make_questions
from cxr.training.run_folder import RunFolder, mean_headlines
from cxr.training.sources import id_salt

log = logging.getLogger(__name__)

OF_THIS_RUN = ("paths", "ckpt_path", "run_name", "logger", "callbacks")
PICTURES_OF_EACH = 4
IMAGES_AT_ONCE, MOST_IMAGES = 256, 5000

grad_cam = partial(make_maps, method="gradcam")


def evaluate(experiment: Experiment, folder: RunFolder, checkpoint: Path, parts: list[str]) -> dict[str, float]:
    """Predictions and metrics of some parts by one checkpoint, written by the first device."""
    look_several_times(experiment)
    log.info("evaluating the best checkpoint %s on %s", checkpoint.name, ", ".join(parts))
    answers = {part: ask(experiment, checkpoint, part) for part in parts}
    if not experiment.trainer.is_global_zero:
        return {}
    if "val" in answers:
        calibrate(answers["val"], folder)
    metrics: dict[str, float] = {}
    for part, questions in answers.items():
        for name, question in questions.items():
            predictions = tell(experiment, question, part, folder)
            metrics |= folder.write_evaluation(predictions, question.class_names, part, name)
        metrics |= mean_headlines(metrics, part)
    folder.write_metrics(metrics)
    if "test" in answers:
        record_opening(*describe_opening(experiment, folder, metrics))
    return metrics


def look_several_times(experiment: Experiment) -> None:
    """From now on the net answers by the views of ``tta``; the names of its state stay, so checkpoints still fit."""
    task, views = experiment.task, experiment.config.tta
    if views is not None and not isinstance(task.net, SeveralViews):
        assert isinstance(task.net, Classifier)  # what build_net makes
        task.net = SeveralViews(task.net, views, bool(target_names(experiment.cohort.samples)))


def ask(experiment: Experiment, checkpoint: Path, part: str) -> dict[str, Question]:
    """What a checkpoint answers for one part, each image once however many devices shared the work."""
    trainer, task, data = experiment.trainer, experiment.task, experiment.datamodule
    with interrupts():
        if part == "train":
            trainer.predict(task, datamodule=data, return_predictions=False, ckpt_path=checkpoint, weights_only=True)
        else:
            loop = trainer.validate if part == "val" else trainer.test
            loop(task, datamodule=data, ckpt_path=checkpoint, weights_only=True, verbose=False)
    return make_questions(*task.outputs_of(part).compute(), experiment.cohort.class_names)


def calibrate(questions: Mapping[str, Question], folder: RunFolder) -> None:
    """Fit the scaling on the answers for validation; targets share one temperature and have no bias."""
    target = np.concatenate([question.target.cpu().numpy() for question in questions.values()])
    logits = np.concatenate([question.logits.double().cpu().numpy() for question in questions.values()])
    found = (fit_scaling if "" in questions else fit_temperature)(target, logits)
    if found is None:
        log.warning(
            "validation is told apart perfectly, or no better than by chance: nothing is fitted, and "
            "probabilities are as the net gives them"
        )
    folder.write_scaling(found)


def tell(experiment: Experiment, question: Question, part: str, folder: RunFolder) -> pd.DataFrame:
    """The predictions table of one question."""
    rows = experiment.datamodule.parts[part].iloc[question.key.cpu().numpy()]
    samples = told_ids(rows.assign(label=question.target.cpu().numpy()), experiment.config)
    scaling = folder.read_scaling()
    return make_predictions(
        samples, question.logits.double().cpu().numpy(), question.class_names, part, folder.root.name,
        scaling=UNSCALED if scaling is None else scaling,
    )  # fmt: skip


def told_ids(samples: pd.DataFrame, config: DictConfig) -> pd.DataFrame:
    """The table with its ids as they may be told: salted hashes unless ``hash_ids=false``."""
    salt = id_salt(config)
    if salt is None:
        return samples
    hashed = {
        name: hash_ids(samples[name], salt) for name in ("sample_id", "patient_id", "study_id") if name in samples
    }
    return samples.assign(**hashed)


def fit_beside(experiment: Experiment, folder: RunFolder) -> Fitted:
    """What goes with the net: scaling, operating point, abstention, and what tells unlike images."""
    outliers = fit_outliers(*(_batches(experiment.datamodule, part) for part in ("train", "val")))
    questions = read_questions(folder.root, ("val",))
    points = describe_points(questions, experiment.config.operating_point)
    return Fitted(folder.read_scaling(), points, describe_abstention(questions), outliers)


def _batches(data: ChestDataModule, part: str) -> Iterator[StoredArray]:
    """Stored images spread evenly over a part, MOST_IMAGES at most."""
    images = open_stored(data, data.parts[part])
    rows = np.unique(np.linspace(0, len(images) - 1, MOST_IMAGES).round().astype(np.int64))
    for start in range(0, len(rows), IMAGES_AT_ONCE):
        yield images[rows[start : start + IMAGES_AT_ONCE]]


def open_stored(data: ChestDataModule, samples: pd.DataFrame) -> StoredImages:
    """The stored images of some samples, in their order."""
    return data.images.open(samples["image_path"].tolist(), samples["content_hash"].tolist())


def write_run_report(experiment: Experiment, folder: RunFolder) -> None:
    """The report of the run, with what needs no net beside the model."""
    if not target_names(experiment.cohort.samples):
        write_baselines(experiment, folder)
        if experiment.config.data.public_images:
            write_gallery(experiment, folder)
    options = Options(rule=experiment.config.operating_point)
    write_report(read_run(folder.root), folder.root, options)


def write_baselines(experiment: Experiment, folder: RunFolder) -> None:
    """Predictions of what needs no net, on the parts that the model was evaluated on."""
    cohort, data = experiment.cohort, experiment.datamodule
    samples = cohort.samples
    stored = open_stored(data, samples)
    for baseline in fit_baselines(samples, cohort.class_names, stored, experiment.config.seed):
        for part, probs in baseline.probs.items():
            if (folder.root / f"predictions_{part}.csv").exists():
                rows = told_ids(samples[samples["split"] == part], experiment.config)
                table = make_predictions(rows, to_logits(probs), cohort.class_names, part, baseline.name)
                folder.write_baseline(table, cohort.class_names, part, baseline.name)


def write_gallery(experiment: Experiment, folder: RunFolder) -> None:
    """Pictures of what the net looks at, of the last part evaluated; only of a dataset whose images may be shown."""
    part = "test" if (folder.root / "predictions_test.csv").exists() else "val"
    samples = experiment.cohort.samples
    images = told_ids(samples[samples["split"] == part], experiment.config)
    columns = [name for name in ("sample_id", "image_path", "boxes") if name in images]
    predictions, class_names = read_predictions(folder.root / f"predictions_{part}.csv")
    rows = predictions.merge(images[columns].astype({"sample_id": "string"}), on="sample_id", validate="one_to_one")
    chosen = choose_rows(rows, PICTURES_OF_EACH)
    try:
        draw_gallery(load_net(folder.root / "bundle"), grad_cam, chosen, class_names, None, folder.root)
    except ConfigError as error:
        log.info("no gallery: %s", error)


def describe_opening(experiment: Experiment, folder: RunFolder, metrics: Mapping[str, float]) -> tuple[Path, Any]:
    """The ledger, and its entry for this evaluation of the test part."""
    config_values = plain(experiment.config)
    recipe = {key: value for key, value in config_values.items() if key not in OF_THIS_RUN}
    fingerprint = experiment.cohort.report["test_fingerprint"]
    opening = make_opening(folder.root.name, hash_config(recipe), fingerprint, "auroc", metrics["test/auroc"])
    return ledger_path(config_values), opening
