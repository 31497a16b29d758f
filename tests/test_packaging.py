from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def test_every_constraint_is_one_exact_release_named_once():
    found = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines()]
    assert all([one.operator for one in requirement.specifier] == ["=="] for requirement in found)
    names = [requirement.name.lower() for requirement in found]
    assert len(names) == len(set(names)) > 100
