"""An AutoML plan carried out: the images read once, the race, the leaderboard after each trial, the conclusion.

Knows nothing of single models or of how mixtures are made.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from threadpoolctl import threadpool_limits

from cxr.data.cohort import fingerprint
from cxr.data.identity import load_salt
from cxr.data.samples import target_names
from cxr.errors import ConfigError, CxrError
from cxr.experiments.automl.conclude import Conclusion, conclude, describe, is_concluded
from cxr.experiments.automl.contestants import Classical, SmallCnn
from cxr.experiments.automl.leaderboard import Entry, write_leaderboard
from cxr.experiments.automl.search import Clock, Contestant, Race
from cxr.experiments.automl.settings import PIXELS, AutoML, check_monitor
from cxr.experiments.automl.task import make_task
from cxr.experiments.automl.views import (
    View,
    find_bundle,
    make_embedding_view,
    make_pixel_views,
    open_images,
    pixel_preprocess,
)
from cxr.experiments.cv import CrossValidation
from cxr.experiments.plan import PlanFolder
from cxr.experiments.processes import available_cores
from cxr.imaging.checks import to_sides
from cxr.inference.bundle import load_net
from cxr.training.evaluate import told_ids
from cxr.training.run_folder import start_logging
from cxr.training.sources import id_salt, open_index, read_learnt, read_pool, stored_preprocess
from cxr.training.sources import open_images as open_store

log = logging.getLogger(__name__)


def run_automl(
    plan: AutoML, config: DictConfig, folder: PlanFolder, words: Sequence[str], command: Sequence[str], console: Console
) -> Conclusion | None:
    """Search until the budget ends, then conclude; an earlier call on the folder is continued.

    Ctrl-C concludes with what there is, the test part left closed.

    Args:
        plan: The settings.
        config: The composed config.
        folder: The plan's folder, locked.
        words: Those of the command for train.py.
        command: What trains, see `cxr.experiments.plan_run.run_plan`.
        console: Is told how it goes.

    Returns:
        None where an earlier call left nothing to do.

    Raises:
        CxrError: Plan, config or data cannot be used, or no trial came to an end.
        KeyboardInterrupt: After the conclusion.
    """
    folder.check_same_settings(config)
    start_logging(folder.root)
    samples, class_names = read_pool(config)
    if target_names(samples):
        raise ConfigError(
            "plan=automl takes one class per image, but these images have several targets; name one in data"
        )
    metric = check_monitor(config.monitor.metric, config.monitor.mode, class_names)
    divided = CrossValidation(plan.folds, 1).divide(samples, class_names, list(config.data.fractions), config.seed)
    folder.begin(config, divided, id_salt(config))
    task = make_task(divided, metric, partial(told_ids, config=config))
    cores = available_cores() if plan.max_cores is None else plan.max_cores
    with threadpool_limits(limits=cores):
        views = _make_views(plan, config, task.samples, samples) if plan.families else {}
        contestants = _make_contestants(plan, config.seed, views, SmallCnn(task, folder, words, command, cores))
        race = Race(contestants, task, folder.root, config.seed, partial(_tell_trial, console))
        clock = Clock(plan.budget_minutes * 60, race.spent)
        console.print(f"{clock.budget - clock.spent:.0f} s for trials of {', '.join(race.studies)}, in {folder.root}")
        return _search_and_conclude(race, clock, plan, config, _test_part(samples), console)


def _search_and_conclude(
    race: Race, clock: Clock, plan: AutoML, config: DictConfig, test: pd.DataFrame | None, console: Console
) -> Conclusion | None:
    interrupted: KeyboardInterrupt | None = None
    try:
        race.run(clock, plan.trials)
    except KeyboardInterrupt as error:
        if not race.trials():
            raise
        console.print("stopped: concluding with what there is, the test part left closed; once more ends at once")
        interrupted, test = error, None
    if is_concluded(race, test):
        if interrupted is not None:
            raise interrupted
        console.print(f"nothing is left to do; raise plan.budget_minutes for more trials; plan folder: {race.folder}")
        return None
    conclusion = conclude(race, config, plan.ensemble_size, test)
    _write_board(race, conclusion)
    _tell_conclusion(conclusion, race, console)
    if interrupted is not None:
        raise interrupted
    return conclusion


def _test_part(samples: pd.DataFrame) -> pd.DataFrame | None:
    """The dataset's official test part; None where it has none."""
    found = samples[samples["split"] == "test"] if "split" in samples else samples[:0]
    return found if len(found) else None


def _make_contestants(plan: AutoML, seed: int, views: Mapping[str, View], cnn: SmallCnn) -> list[Contestant]:
    racing: list[Contestant] = [Classical(name, views, cnn.task, cnn.threads, seed) for name in plan.families]
    return [*racing, cnn] if plan.include_dnn else racing


def _make_views(plan: AutoML, config: DictConfig, samples: pd.DataFrame, pool: pd.DataFrame) -> dict[str, View]:
    """What models may see of the samples; the pool has those of the test part too."""
    files = samples["image_path"].tolist(), samples["content_hash"].tolist()
    if plan.features == PIXELS:
        preprocess = pixel_preprocess(stored_preprocess(config), to_sides("plan.size", plan.size))
        return make_pixel_views(preprocess, open_images(open_store(config, preprocess), *files), plan.featurize)
    bundle = find_bundle(plan.features)
    net = load_net(bundle)
    if not net.extras.get("frozen_backbone", False):
        _check_other_images(net.extras.get("data_fingerprint"), (samples, pool), bundle, config)
    images = open_images(open_store(config, net.preprocess), *files)
    return make_embedding_view(net, images, files[1], Path(config.paths.cache_dir) / "embeddings", bundle)


def _check_other_images(learnt: object, tables: Sequence[pd.DataFrame], bundle: Path, config: DictConfig) -> None:
    """Raise ConfigError for a net that was trained on any of these images, whose embedding knows their labels."""
    pool = tables[-1]
    is_same = learnt in [fingerprint(table) for table in tables]
    shared = len(pool) if is_same else int(pool["content_hash"].isin(_learnt_hashes(bundle, config)).sum())
    if shared:
        raise ConfigError(
            f"plan.features must be a net of other images, but {bundle} was trained on {shared} of these {len(pool)}, "
            "so its embedding knows their labels and every score would be too good; give a net trained elsewhere (with "
            "data.avoid=<a plan or run on these>), or one with transfer.freeze_upto=backbone"
        )


def _learnt_hashes(bundle: Path, config: DictConfig) -> set[str]:
    """The hashes of the files that a net has learnt, as its run folder tells; none where that cannot be told."""
    try:
        learnt = read_learnt(bundle.parent, load_salt(Path(config.paths.cache_dir)))
    except CxrError as error:
        log.warning(
            "the net of %s is compared with these images by the fingerprint of all its data alone, which finds no part "
            "of them, since its own cannot be told (%s)", bundle, error,
        )  # fmt: skip
        return set()
    return set(open_index(config).describe(learnt["image_path"].tolist())["content_hash"].dropna())


def _entries(race: Race) -> list[Entry]:
    return [
        Entry(f"{name}_{one.number}", name, one.user_attrs["measured"], one.user_attrs["seconds"], one.params)
        for name, one in race.trials()
    ]


def _write_board(race: Race, conclusion: Conclusion | None = None) -> None:
    """The leaderboard so far, with the mixtures once there are some."""
    entries = _entries(race)
    failed = [
        f"{name}_{one.number}: {one.user_attrs.get('error', 'interrupted')}"
        for name, one in race.trials(TrialState.FAIL)
    ]
    if conclusion is not None:
        choice, told = conclusion.choice, describe(conclusion.choice, conclusion.library)
        entries += [
            Entry(name, "mixture", race.task.measure(probs), None, told if name == choice.strategy else {})
            for name, probs in choice.probs.items()
        ]
        failed += [f"{name} was not chosen from: {reason}" for name, reason in conclusion.left_out.items()]
    if entries:
        write_leaderboard(entries, race.task.metric, failed, race.folder, race.spent)


def _tell_trial(console: Console, race: Race, trial: FrozenTrial) -> None:
    name = f"{trial.user_attrs['family']} {trial.number}"
    if trial.value is None:
        console.print(f"{name}: {trial.user_attrs.get('error', 'interrupted')}")
    else:
        best = max(one.value for _, one in race.trials())
        seconds = trial.user_attrs["seconds"]
        console.print(f"{name}: {race.task.metric} {trial.value:.4f} in {seconds:.1f} s; best {best:.4f}")
    _write_board(race)


def _tell_conclusion(conclusion: Conclusion, race: Race, console: Console) -> None:
    choice = conclusion.choice
    scores = ", ".join(f"{name} {race.task.score(probs):.4f}" for name, probs in choice.probs.items())
    console.print(f"{race.task.metric} on folds that were not chosen on: {scores}")
    console.print(f"winner: {choice.strategy} of {', '.join(describe(choice, conclusion.library)['members'])}")
    for part in ("val", "test"):
        shown = [f"{name} {conclusion.metrics[f'{part}/{name}']:.4f}" for name in ("auroc", "accuracy")
                 if f"{part}/{name}" in conclusion.metrics]  # fmt: skip
        if shown:
            console.print(f"{'out of fold' if part == 'val' else part}: {', '.join(shown)}")
    console.print(f"plan folder: {race.folder}")
