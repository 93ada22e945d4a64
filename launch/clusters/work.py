"""What is started on a cluster, and where its logs are."""

import dataclasses
import pathlib
import re

from prior_jax.errors import ConfigError

LOGS_NAME = "logs"
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """A run or a sweep.

    Attributes:
      name: of the job and of what is made for it; started again, it is known by it. Lower-case
        letters, digits and "-", at most 40, as in a host's name.
      workdir: absolute; every process has to see it under this path.
      module: the program, e.g. "launch.train".
      arguments: of the program, without those that say which processes there are.
    """

    name: str
    workdir: pathlib.Path
    module: str
    arguments: tuple[str, ...]

    def __post_init__(self):
        """Refuses a name that is none for a host, and a path that means another place there."""
        if not _NAME.fullmatch(self.name):
            accepted = "at most 40 lower-case letters, digits and '-', beginning with a letter"
            raise ConfigError("--name", received=self.name, accepted=accepted)
        if not self.workdir.is_absolute():
            raise ConfigError(
                "--workdir", received=str(self.workdir), accepted="an absolute path for a cluster"
            )

    @property
    def logs(self) -> pathlib.Path:
        """The folder of the logs, one a process."""
        return self.workdir / LOGS_NAME


def default_name(workdir: pathlib.Path) -> str:
    """A name made of the folder's: what is no letter or digit becomes "-"."""
    return re.sub(r"[^a-z0-9]+", "-", workdir.name.lower()).strip("-")[:40].rstrip("-")
