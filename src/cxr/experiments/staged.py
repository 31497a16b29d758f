"""Runs one after another, each on what earlier ones left: pretrain on one dataset, fine-tune on another.

Knows nothing of how a run trains, or of what its words mean.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from cxr.errors import ConfigError
from cxr.experiments.plan import PlanFolder, PlannedRun, check_setting, word
from cxr.experiments.spread import Summary, summarize
from cxr.training.config_rules import Rule
from cxr.training.run_folder import RunFolder

NOTES = (
    "Each stage is tested on the test part of its own dataset: only stages on one split compare, by "
    "`cxr compare <plan folder>/ONE <plan folder>/OTHER`.",
)
NAME = Rule(
    "letters, digits, - and _, and not splits",
    lambda name: isinstance(name, str) and re.fullmatch(r"[\w-]+", name) is not None and name != "splits",
)
WORDS = Rule(
    "a list of words for train.py such as ['experiment=demo', 'seed=1']",
    lambda words: isinstance(words, list) and all(isinstance(one, str) and "=" in one for one in words),
)
_MENTION = re.compile(r"<([\w-]+)>")


@dataclass(frozen=True)
class Staged:
    """A list of runs that may differ in everything; a stage waits for the earlier ones that its words mention.

    Args:
        stages: Name -> words for train.py beside those of the command. ``<name>`` in a word stands for the run folder
            of an earlier stage, as in ``transfer.init_from=<pretrain>``.

    Raises:
        ConfigError: There is no stage, or a name, a word or a mention cannot be used.
    """

    stages: Mapping[str, Sequence[str]]

    def __post_init__(self) -> None:
        if not isinstance(self.stages, dict) or not self.stages:
            raise ConfigError(
                "plan.stages must be stages by name, such as {first: ['seed=0'], then: ['transfer.init_from=<first>']}"
                f", but got {self.stages!r}"
            )
        for number, (name, words) in enumerate(self.stages.items()):
            check_setting("each name in plan.stages", name, NAME)
            check_setting(f"plan.stages.{name}", words, WORDS)
            self._check_mentions(name, list(self.stages)[:number])

    def runs(self, config: DictConfig) -> list[PlannedRun]:
        """One run per stage, each on its own dataset, which it divides itself; see `Plan`."""
        folder = PlanFolder(Path(config.paths.output_dir))
        return [
            PlannedRun(name, None, [], tuple(_fill_in(one, folder) for one in words), self._mentioned(name))
            for name, words in self.stages.items()
        ]

    def reduce(self, runs: Sequence[RunFolder], folder: Path) -> Summary:
        """The test metrics of the stages side by side."""
        values = summarize({run.root.name: run.read_metrics() for run in runs}, 0.0, NOTES).values
        table = values.T
        table.insert(0, "runs", values.notna().sum())
        return Summary(values, table, NOTES)

    def _mentioned(self, name: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(_MENTION.findall(" ".join(self.stages[name]))))

    def _check_mentions(self, name: str, earlier: Sequence[str]) -> None:
        unknown = [one for one in self._mentioned(name) if one not in earlier]
        if unknown:
            before = ", ".join(f"<{one}>" for one in earlier) if earlier else "none"
            raise ConfigError(
                f"plan.stages.{name} mentions <{unknown[0]}>, expected a stage before it: {before}; rename or reorder"
            )


def _fill_in(text: str, folder: PlanFolder) -> str:
    """A word with the folders of the stages that it mentions, quoted so that they arrive as they are."""
    key, _, value = text.partition("=")
    if _MENTION.search(value) is None:
        return text
    return word(key, _MENTION.sub(lambda match: str(folder.run(match[1]).root), value))
