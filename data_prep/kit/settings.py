"""The settings that preparers share: how a set is stored, and how its tables and texts are read."""

import dataclasses
import pathlib
import stat

from data_prep.kit import cli, encodings, splits, values
from data_prep.kit.images import PreparedImage, prepare_image
from data_prep.kit.tables import Table
from data_prep.kit.text import TextSettings
from prior_jax.data.decode import ImageProblem
from prior_jax.data.sentences import SPLITTER_HELP
from prior_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoreSettings:
    """The settings of how a set is stored; every preparer's settings begin with them."""

    short_side: int = cli.setting(
        "Pixels of the stored images' shorter side; smaller images keep their size. 256 leaves "
        "room to crop and rotate an image for 224, in 1/100 of the space of a full radiograph.",
        default=256,
    )
    jpeg_quality: int = cli.setting("Quality of the stored JPEGs, 1 to 100.", default=95)
    studies_per_shard: int = cli.setting("Largest number of studies in a shard.", default=512)
    encoding: str = cli.setting(encodings.HELP, default=encodings.UTF8)

    def __post_init__(self):
        """Refuses invalid values."""
        self.check("short_side", self.short_side >= 32, "32 or more")
        self.check("jpeg_quality", 1 <= self.jpeg_quality <= 100, "1 to 100")
        self.check("studies_per_shard", self.studies_per_shard >= 1, "1 or more")
        self.check("encoding", encodings.is_known(self.encoding), encodings.MUST_BE)

    def check(self, name: str, valid: bool, must_be: str) -> None:
        """Refuses the value of a flag that is not valid.

        Args:
          name: name of the setting.
          valid: whether its value is valid.
          must_be: completes "It must be ...", e.g. "1 or more".

        Raises:
          ConfigError: if the value is not valid; the message names the flag.
        """
        if not valid:
            raise ConfigError.of_value(f"--{name}", getattr(self, name), must_be)

    def refuse_encoding(self) -> None:
        """Refuses another encoding than UTF-8 in a program that reads no table."""
        must_be = "utf-8, since this data set has no table that could be in another encoding"
        self.check("encoding", self.encoding == encodings.UTF8, must_be)

    def table(
        self, path: pathlib.Path, *, flag: str, key: str, single_lines: bool = False
    ) -> Table:
        """Opens a table in the encoding of the settings; the arguments are those of `Table`."""
        return Table(path, flag=flag, key=key, single_lines=single_lines, encoding=self.encoding)

    def stored(self, table: str) -> "StoredImages":
        """Returns the storage of the images that are rows of a table."""
        return StoredImages(short_side=self.short_side, quality=self.jpeg_quality, table=table)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetSettings(StoreSettings):
    """The settings of a preparer whose data set does not give all patients a split."""

    min_sentences: int = cli.setting("Least number of sentences of a report.", default=1)
    splitter: str = cli.setting(SPLITTER_HELP, default="pysbd")
    split_fractions: tuple[str, ...] = cli.setting(
        "Shares of train, validate and test, for patients without a given split.",
        default=("0.8", "0.1", "0.1"),
    )
    split_seed: int = cli.setting("Seed of the drawing of splits.", default=0)

    def __post_init__(self):
        """Refuses invalid values."""
        super().__post_init__()
        self.fractions()
        self.text(free_text=True)

    def text(self, *, free_text: bool) -> TextSettings:
        """Returns the settings for reading reports, which do not look up ids of MIMIC-CXR."""
        return TextSettings(
            parser="paper",
            splitter=self.splitter,
            min_sentences=self.min_sentences,
            free_text=free_text,
        )

    def fractions(self) -> tuple[float, ...]:
        """Returns the shares as numbers.

        Raises:
          ConfigError: if the shares are no numbers, or do not sum to 1.
        """
        return splits.checked_fractions(self.split_fractions, flag="--split_fractions")

    def drawn_split(self, patient: str) -> int:
        """Returns the index in `schema.SPLITS` of the split that is drawn for a patient."""
        name = values.comparable_id(patient)
        return splits.drawn_split(name, fractions=self.fractions(), seed=self.split_seed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredImages:
    """The storage of images.

    Attributes:
      short_side: pixels of the shorter side; larger images are shrunk to it.
      quality: quality of the JPEGs, 1 to 100.
      table: name of the table whose rows are the images.
    """

    short_side: int
    quality: int
    table: str

    def read(self, path: pathlib.Path, *, name: str) -> PreparedImage:
        """Reads, checks and encodes an image.

        Args:
          path: path of the image.
          name: name of the image in messages.

        Raises:
          ImageProblem: missing_image, unreadable_image, or one of `images.prepare_image`.
        """
        try:
            kind = path.stat().st_mode
            if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):  # a pipe could block
                raise ImageProblem("unreadable_image", f"{name} is a pipe or device")
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise ImageProblem("missing_image", name) from error
        except (OSError, ValueError) as error:
            raise ImageProblem("unreadable_image", f"{name}: {error}") from error
        return prepare_image(
            content, short_side=self.short_side, quality=self.quality, name=path.name
        )
