"""Where the Snakefile, the workflow, the configs and the profiles are.

They stand at the top of a checkout, and in an installed wheel in a folder of the package. What a
user names is looked for in the current folder first, so that the same words work in both.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

__all__ = ["checkout", "config_file", "located", "shipped", "studies"]

PACKAGE = Path(__file__).resolve().parent


@cache
def shipped() -> Path:
    """The folder that holds `Snakefile`, `workflow`, `config` and `profiles`."""
    return checkout() or PACKAGE / "share"


@cache
def checkout() -> Path | None:
    """The top of the checkout, None of an installed wheel."""
    return PACKAGE.parent if (PACKAGE.parent / "Snakefile").is_file() else None


def located(path: str | Path, folder: Path = Path()) -> Path:
    """A path seen from a folder; where nothing stands there, a shipped file of that name if any."""
    own, other = folder / path, shipped() / path
    return other if _exists(other) and not _exists(own) else own


@cache
def studies() -> dict[str, Path]:
    """The configs of the studies that are shipped, by the names of the studies."""
    config = shipped() / "config"
    found = {path.stem: path for path in sorted((config / "studies").glob("*.yaml"))}
    return {"quick": config / "config.yaml"} | found


def config_file(study: str | Path, folder: Path = Path()) -> Path:
    """The config file of a study: its path, or the name of one that is shipped.

    Parameters
    ----------
    study : str or Path
        Such as ``mine.yaml``, ``exact-kl`` or ``config/studies/exact-kl.yaml``.
    folder : Path
        From which a relative path is seen.
    """
    path = located(study, folder)
    return path if path.is_file() else studies().get(str(study), path)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no file can have
        return False
