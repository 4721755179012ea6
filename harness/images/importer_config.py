"""The image's own configuration, from the JSON that comes with its layers (OCI, config.md)."""

from collections.abc import Mapping
from typing import Any

from harness.errors import InputError
from harness.images.importer_user import read_accounts, resolve_user
from harness.images.model import ImageConfig
from harness.images.rootfs import Tree

ARCHITECTURE = "amd64"
SYSTEM = "linux"


def require_platform(document: Mapping[str, Any], source: object) -> None:
    """Raise InputError for an image that is not for this kind of machine."""
    found = f"{document.get('os') or SYSTEM}/{document.get('architecture') or ARCHITECTURE}"
    if found != f"{SYSTEM}/{ARCHITECTURE}":
        raise InputError(
            f"{source} is an image for {found}, and this harness runs {SYSTEM}/{ARCHITECTURE}",
            hint="name the variant of the image that is built for x86-64",
        )


def build_config(document: Mapping[str, Any], tree: Tree) -> ImageConfig:
    """The configuration in an image's ``config.json``; the user is looked up in ``tree``."""
    config = document.get("config") or {}
    variables = (str(each).partition("=") for each in config.get("Env") or ())
    user = str(config.get("User") or "")
    identity, home = find_identity(user, tree)
    directory = str(config.get("WorkingDir") or "/")
    return ImageConfig(
        entrypoint=tuple(map(str, config.get("Entrypoint") or ())),
        command=tuple(map(str, config.get("Cmd") or ())),
        environment={name: value for name, equals, value in variables if name and equals},
        directory=directory if directory.startswith("/") else f"/{directory}",
        user=user,
        identity=identity,
        home=home,
    )


def find_identity(user: str, tree: Tree) -> tuple[str, str]:
    """Numbers and home of a user; empty numbers where the image does not know the name."""
    try:
        found = resolve_user(user, *read_accounts(tree))
    except InputError:
        return "", "/"
    return found.identity, found.home
