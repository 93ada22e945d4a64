"""A program to start on a cluster, and the folder of its logs."""

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
      name: name of the job and of the resources that are created for it; a later start finds the
        job by this name. At most 40 lower-case letters, digits and "-", as in a host name.
      workdir: absolute path of the workdir, the same for every process.
      module: module of the program, e.g. "launch.train".
      arguments: arguments of the program, without those that describe its processes.
    """

    name: str
    workdir: pathlib.Path
    module: str
    arguments: tuple[str, ...]

    def __post_init__(self):
        """Refuses a name that is no host name, and a path that is not the same on every host."""
        if not _NAME.fullmatch(self.name):
            must_be = (
                "at most 40 lower-case letters, digits and '-', beginning with a letter and not "
                "ending with '-'"
            )
            raise ConfigError.of_value("--name", self.name, must_be)
        if not self.workdir.is_absolute():
            raise ConfigError.of_value(
                "--workdir", str(self.workdir), "an absolute path, the same on every host"
            )

    @property
    def logs(self) -> pathlib.Path:
        """Returns the folder of the logs; each process has one log."""
        return self.workdir / LOGS_NAME


def default_name(workdir: pathlib.Path) -> str:
    """Returns a job name from the folder's name, with "-" for all but letters and digits."""
    return re.sub(r"[^a-z0-9]+", "-", workdir.name.lower()).strip("-")[:40].rstrip("-")
