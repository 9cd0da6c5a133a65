"""Where the shipped configurations lie: beside the package once installed, in the checkout's ``configs`` otherwise."""

from pathlib import Path

from diffaudit.errors import InvalidSetting


def configuration_folder() -> Path:
    """The folder of the shipped YAML files."""
    installed = Path(__file__).with_name("configs")
    return installed if installed.exists() else Path(__file__).parents[2] / "configs"


def configuration_names() -> list[str]:
    """What a bare name may be: the stems of the shipped files, in order."""
    return sorted(path.stem for path in configuration_folder().glob("*.yaml"))


def settings_path(given: str, *, key: str = "settings", folder: Path = Path()) -> Path:
    """The file that ``given`` means: a bare name such as ``quick`` is a shipped configuration, all else a path.

    Args:
        given: a word without a folder and without an ending is bare; a file of the user's is always reached as
            ``./word``.
        key: what an error calls it.
        folder: where paths are taken from.

    Raises:
        InvalidSetting: there is no such file.
    """
    bare = given.replace("-", "_").isidentifier()
    path = configuration_folder() / f"{given}.yaml" if bare else folder / given
    if not path.is_file():
        names = ", ".join(configuration_names()) or "none found"
        raise InvalidSetting(key, f"be a YAML file or a shipped configuration ({names})", given)
    return path
