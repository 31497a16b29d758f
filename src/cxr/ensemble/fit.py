"""Members -> an ensemble: which rule, whose weights, and what can honestly be said of it.

Runs on one split share validation, where weights and scaling are fitted, and test. Cross-validated recipes share
folds, whose pooled predictions are all there is: each row has one net in a recipe that did not learn it, while an
ensemble of all folds learnt every row. So what is learnt from these rows (a stack, weights) is told on them by a copy
that was fitted on the other folds, and nothing is said on them of the nets of a recipe together. Knows nothing of how
an ensemble is stored.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from cxr.ensemble.members import POOLED, Floats, Member, Rows, align
from cxr.ensemble.selection import select_weights
from cxr.ensemble.stacking import fit_stack
from cxr.errors import ConfigError
from cxr.evaluation.calibration import fit_scaling, fit_temperature
from cxr.evaluation.predictions import make_predictions
from cxr.evaluation.report.decisions import describe_abstention, describe_points
from cxr.evaluation.report.material import Question
from cxr.inference.bundle import Fitted
from cxr.inference.combine import WINNER_DEFINED, Rule, to_logits
from cxr.scaling import UNSCALED, Scaling

RULES = ("soft", "majority", "stack")
FIT = "fit"
"""Instead of weights: those that `select_weights` finds."""
Weights = Sequence[float] | str | None
FitRule = Callable[[Rows], Rule]

ON_VALIDATION = "The weights were fitted on validation, so numbers on validation are a little too good."
OF_FOLDS = (
    "The nets of all folds answer together, so every image of the folds was learnt by most of them and none can be "
    "tested on. The pooled predictions, each by the one net that did not learn the image, are the estimate; averaging "
    "makes it, as a rule, a cautious one."
)
CROSS_FITTED = (
    "What combines the recipes was fitted on their pooled predictions; its own numbers on each fold are of a copy "
    "fitted on the other folds."
)


@dataclass(frozen=True)
class Ensemble:
    """Members and how they are combined.

    Attributes:
        members: Those that have a say, at least one.
        rule: Combines them; of one cross-validated recipe, its nets.
        class_names: The K names in order.
        tables: Part -> predictions of the ensemble on rows that nothing in it learnt.
        fitted: Temperature and operating point.
        notes: What a reader of the numbers must know, in sentences.
    """

    members: Sequence[Member]
    rule: Rule
    class_names: list[str]
    tables: Mapping[str, pd.DataFrame]
    fitted: Fitted
    notes: Sequence[str]


def fit_ensemble(members: Sequence[Member], rule: str, weights: Weights, name: str, operating_rule: str) -> Ensemble:
    """Combine runs on one split, or cross-validated recipes on the same folds.

    Args:
        members: All of one sort; one recipe alone is an ensemble of its folds.
        rule: 'soft', 'majority' or 'stack'; a stack is of recipes alone.
        weights: Of a soft vote, one for each member in order; 'fit' for greedy selection on validation, or on pooled
            predictions; None for equal ones. Members of weight 0 are left out.
        name: Of the ensemble, as its tables have it.
        operating_rule: How the threshold is chosen, see `cxr.evaluation.operating_point.parse_rule`.

    Raises:
        ConfigError: Members or settings that do not go together.
        DataError: Members on other rows.
    """
    _check(members, rule, weights)
    if POOLED in members[0].tables:
        return _combine_recipes(members, rule, weights, name, operating_rule)
    parts, fit = align(members), _rule_fitter(rule, weights)
    ensemble = combine_runs(members, fit(parts["val"]), parts, name, operating_rule)
    return replace(ensemble, notes=[ON_VALIDATION]) if weights == FIT else ensemble


def combine_runs(
    members: Sequence[Member],
    rule: Rule,
    parts: Mapping[str, Rows],
    name: str,
    operating_rule: str,
    class_names: list[str] | None = None,
) -> Ensemble:
    """Runs on one split by a rule that is known.

    Args:
        members: The runs.
        rule: The rule; of a soft vote, members of weight 0 are left out.
        parts: What they say, validation among it.
        name: Of the ensemble.
        operating_rule: As in `fit_ensemble`.
        class_names: Of the ensemble; None: those of the first member.
    """
    names = members[0].class_names if class_names is None else class_names
    kept, rule = _drop_silent(len(members), rule)
    parts = {part: rows.of_members(kept) for part, rows in parts.items()}
    fit = fit_temperature if rule.name in WINNER_DEFINED else fit_scaling
    scaling = fit(parts["val"].target, to_logits(rule(parts["val"].probs)))
    tables = {
        part: _tell(rows, rule(rows.probs), names, part, name, scaling).assign(fold=rows.table["fold"])
        for part, rows in parts.items()
    }
    fitted = _fit_beside(scaling, tables["val"], names, operating_rule)
    return Ensemble([members[i] for i in kept], rule, names, tables, fitted, [])


def _combine_recipes(
    members: Sequence[Member], rule: str, weights: Weights, name: str, operating_rule: str
) -> Ensemble:
    """Recipes on the same folds; no scaling, since no row shows how sure the nets of all folds are together."""
    names, rows = members[0].class_names, align(members)[POOLED]
    fit = _rule_fitter(rule, weights)
    final, learns = fit(rows), rule == "stack" or weights == FIT
    probs = cross_fit(rows, fit) if learns else final(rows.probs)
    table = _tell(rows, probs, names, "test", name).assign(run=rows.table["run"], fold=rows.table["fold"])
    kept, final = _drop_silent(len(members), final)
    fitted = _fit_beside(None, table, names, operating_rule)
    notes = [OF_FOLDS, *([CROSS_FITTED] if learns else [])]
    return Ensemble([members[i] for i in kept], final, names, {POOLED: table}, fitted, notes)


def _fit_beside(scaling: Scaling | None, table: pd.DataFrame, names: list[str], operating_rule: str) -> Fitted:
    """What goes with the members, chosen on the rows of a table."""
    questions = [Question("", names, {"val": table})]
    return Fitted(scaling, describe_points(questions, operating_rule), describe_abstention(questions))


def cross_fit(rows: Rows, fit: FitRule) -> Floats:
    """(N, K) probabilities of each fold's rows by a rule that is fitted without them, in whatever repeat they come."""
    ids, folds = rows.table["sample_id"], rows.table["run"]
    probs = np.empty(rows.probs.shape[1:])
    for fold in folds.unique():
        held = (folds == fold).to_numpy(np.bool_)
        others = ~ids.isin(ids[held]).to_numpy(np.bool_)
        probs[held] = fit(rows.of_rows(others))(rows.of_rows(held).probs)
    return probs


def _check(members: Sequence[Member], rule: str, weights: Weights) -> None:
    pooled = [POOLED in member.tables for member in members]
    if any(pooled) and not all(pooled):
        raise ConfigError(
            "expected runs on one split, or folders of plan=cv, but got both; a run's validation is not a fold"
        )
    if len(members) == 1 and not any(pooled):
        raise ConfigError("expected two or more runs, or a folder of plan=cv or plan=seeds, got one run; add another")
    if len(members) == 1 and (rule != "soft" or weights is not None):
        raise ConfigError(
            "expected --rule soft without --weights for one folder of plan=cv, whose nets are of one recipe and count "
            "alike; leave both out, or add folders of other recipes on the same folds"
        )
    if rule not in RULES:
        raise ConfigError(f"expected --rule to be one of {', '.join(RULES)}, got {rule!r}; choose one of these")
    if weights is not None and rule != "soft":
        raise ConfigError(
            f"expected --weights with --rule soft, which alone has any, got --rule {rule}; leave them out"
        )
    if rule == "stack" and not all(pooled):
        raise ConfigError(
            "expected two or more folders of plan=cv on the same folds to stack, since a stack may learn only from "
            "predictions for images that no net had learnt or was chosen on; train each recipe with plan=cv"
        )


def _rule_fitter(rule: str, weights: Weights) -> FitRule:
    """What makes the rule from rows."""
    if rule == "stack":
        return lambda rows: fit_stack(rows.probs, rows.target)
    if weights == FIT:
        return lambda rows: Rule("soft", {"weights": select_weights(rows.probs, rows.target).tolist()})
    known = Rule(rule, {} if weights is None else {"weights": list(weights)})
    return lambda _: known


def _drop_silent(members: int, rule: Rule) -> tuple[list[int], Rule]:
    """Members with a weight, and the rule for these."""
    weights = rule.settings.get("weights")
    if weights is None:
        return list(range(members)), rule
    rule(np.full((members, 1, 2), 0.5))
    kept = [index for index, weight in enumerate(weights) if weight > 0]
    return kept, Rule(rule.name, {"weights": [weights[index] for index in kept]})


def _tell(
    rows: Rows, probs: Floats, class_names: list[str], part: str, name: str, scaling: Scaling | None = None
) -> pd.DataFrame:
    samples = rows.table.rename(columns={"target": "label"})
    chosen = UNSCALED if scaling is None else scaling
    return make_predictions(samples, to_logits(probs), class_names, part, name, scaling=chosen)
