"""What runs in an instance: the workload's own words over those of its image.

An image's environment lies below the workload's; command, working directory and user are the
workload's where it states them. The agent carries all of it out, so that it is the same everywhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.errors import InputError
from harness.images.importer_user import find_accounts, resolve_user
from harness.images.model import Image, ImageConfig
from harness.workloads import Workload


@dataclass(frozen=True, slots=True)
class Launch:
    """A workload in its image, decided. ``user`` is ``UID:GID[,GROUP…]``; None is the agent's."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    directory: str = "/"
    user: str | None = None


def build_launch(workload: Workload, image: Image) -> Launch:
    """What an instance of ``workload`` runs; raises InputError where that is not known."""
    config = image.config or ImageConfig()
    command = workload.command or config.argv
    if not command:
        raise InputError(
            f"{workload.source or workload.name}: key 'command': the image {image.name} has no "
            "command of its own",
            hint="state the command of the workload",
        )
    user, home = _find_user(workload, image)
    below = {"HOME": home} if home and "HOME" not in config.environment else {}
    return Launch(
        command=command,
        environment={**below, **config.environment, **workload.environment},
        directory=workload.directory or config.directory,
        user=user,
    )


def require_launches(workloads: Sequence[Workload], images: Mapping[str, Image]) -> None:
    """Raise InputError for the first workload that its image has no command or user for."""
    for workload in workloads:
        build_launch(workload, images[workload.image])


def _find_user(workload: Workload, image: Image) -> tuple[str | None, str]:
    """Numbers and home of the user to run as; engines too set HOME where nobody says it."""
    if workload.user is not None:
        try:
            found = resolve_user(workload.user, *find_accounts(image.tree))
        except InputError as error:
            source = workload.source or workload.name
            raise InputError(f"{source}: key 'user': {error.message}: {image.name}") from None
        return found.identity, found.home
    if image.config is None:
        return None, ""
    if not image.config.identity:
        raise InputError(
            f"image {image.name} wants to run as {image.config.user!r}, and its own /etc/passwd "
            "or /etc/group has no such name",
            hint="state a `user` in the workload",
        )
    return image.config.identity, image.config.home
