"""Errors that a user can mend. Knows nothing of the rest of the package."""

import errno
import importlib.util

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Of an OSError: the disk is full, the user's share of it is, or a file is as large as it may become."""


class CxrError(Exception):
    """A problem the user can mend: one sentence with what was expected, what came, and the remedy."""


class ConfigError(CxrError):
    """A config value that cannot be used."""


class DataError(CxrError):
    """A dataset, table or split that cannot be used."""


class ImageError(CxrError):
    """A file that gives no image."""


class WeightsError(CxrError):
    """Model weights that are absent or do not fit."""


class TrainingError(CxrError):
    """A training run that cannot go on."""


class MissingExtraError(CxrError):
    """An optional dependency that is not installed."""


def require_extra(module: str, extra: str) -> None:
    """Raise MissingExtraError with the install line unless `module` can be imported.

    Args:
        module: Top-level import name, for example ``"wandb"``.
        extra: The extra of this package that installs it, for example ``"wandb"``.
    """
    if importlib.util.find_spec(module) is None:
        raise MissingExtraError(f"{module} is not installed; install it with: pip install 'cxr-lab[{extra}]'")
