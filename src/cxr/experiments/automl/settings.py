"""What can be chosen of an AutoML plan, checked. Knows nothing of how it is carried out."""

from collections.abc import Sequence
from dataclasses import dataclass

from cxr.errors import ConfigError, require_extra
from cxr.evaluation.metrics import classification_metrics
from cxr.experiments.plan import check_setting
from cxr.training.config_rules import POSITIVE, SWITCH, TEXT, optional, whole

PIXELS = "pixels"
FAMILY_NAMES = ("svm", "xgboost", "lightgbm", "random_forest", "logistic_regression", "knn")
MODULES = ("optuna", "onnxruntime", "skl2onnx", "onnxmltools", "skimage")


@dataclass(frozen=True)
class AutoML:
    """The settings of configs/plan/automl.yaml, which says what each does.

    Raises:
        ConfigError: A value that cannot be.
        MissingExtraError: A package of the extra ``automl`` is not installed.
    """

    budget_minutes: float
    trials: int | None
    max_cores: int | None
    folds: int
    features: str
    size: Sequence[int]
    featurize: bool
    families: Sequence[str]
    include_dnn: bool
    ensemble_size: int

    def __post_init__(self) -> None:
        check_setting("plan.budget_minutes", self.budget_minutes, POSITIVE)
        check_setting("plan.trials", self.trials, optional(whole(1)))
        check_setting("plan.max_cores", self.max_cores, optional(whole(1)))
        check_setting("plan.folds", self.folds, whole(2))
        check_setting("plan.features", self.features, TEXT)
        check_setting("plan.featurize", self.featurize, SWITCH)
        check_setting("plan.include_dnn", self.include_dnn, SWITCH)
        check_setting("plan.ensemble_size", self.ensemble_size, whole(1))
        self._check_families()
        if self.features != PIXELS and not self.featurize:
            raise ConfigError(
                "plan.featurize=false takes the pixels themselves, but plan.features names a net; leave one of them out"
            )
        for module in (*MODULES, *({"xgboost", "lightgbm"} & set(self.families))):
            require_extra(module, "automl")

    def _check_families(self) -> None:
        families = self.families
        known = isinstance(families, list) and set(families) <= set(FAMILY_NAMES)
        if not known or len(set(families)) < len(families) or not (families or self.include_dnn):
            raise ConfigError(
                f"plan.families must be a list that names some of {', '.join(FAMILY_NAMES)}, each once, but got "
                f"{families!r}"
            )


def check_monitor(metric: str, mode: str, class_names: list[str]) -> str:
    """The metric by which models are chosen, from ``monitor.metric`` and ``monitor.mode``.

    Raises:
        ConfigError: It cannot be measured on a table of predictions, or less of it would be better.
    """
    known = list(classification_metrics([0], [[1.0] + [0.0] * (len(class_names) - 1)], class_names))
    name = metric.removeprefix("val/")
    if name not in known or mode != "max":
        raise ConfigError(
            f"plan=automl chooses models by the most of one of {', '.join(known)}, but got monitor.metric={metric} and "
            f"monitor.mode={mode}; set both so"
        )
    return name
