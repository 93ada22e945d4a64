"""Configuration of the objective "segmentation"."""

import dataclasses
from collections.abc import Mapping
from typing import Literal, get_args

from prior_jax.errors import ConfigError, check_choice, check_field, in_section
from prior_jax.losses.limits import LARGEST
from prior_jax.near_names import check_classes
from prior_jax.nn.resnet import ImageEncoderConfig, ResNetConfig
from prior_jax.nn.unet import Form, UNetDecoderConfig
from prior_jax.nn.upernet import UPerNetConfig
from prior_jax.objectives.two_tower import ComputeDtype

Decoder = Literal["unet", "unet_transposed", "linear", "upernet"]
MaskLoss = Literal["mixed", "dice", "cross_entropy"]
_UNETS: Mapping[str, Form] = {"unet": "nearest", "unet_transposed": "transposed"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """The decoder between the encoder's maps and the masks; the section `config.model.decoder`.

    Attributes:
      kind: "unet" repeats pixels, as the Unet of segmentation_models_pytorch does (GLoRIA, MGCA);
        "unet_transposed" learns the doubling (LoVT); "linear" is one linear map on each cell of the
        last map (LoVT); "upernet" is UPerNet (BenchX).
      channels: numbers of channels. Of a U-Net those of the blocks from coarse to fine, one for
        each doubling of the last map: 256, 128, 64, 32, 16 in segmentation_models_pytorch, 1024,
        512, 256, 128, 64 in LoVT. Of UPerNet that of its maps, mmsegmentation 512, and that of the
        auxiliary head, 256. () for "linear".
      auxiliary_weight: weight of the loss of UPerNet's auxiliary head, mmsegmentation 0.4; 0 for no
        such head, and for the other decoders.
      dropout: share of the channels that UPerNet drops before the logits in training,
        mmsegmentation 0.1; 0 for the other decoders.
    """

    kind: Decoder
    channels: tuple[int, ...]
    auxiliary_weight: float
    dropout: float

    def __post_init__(self):
        """Refuses values that define no decoder."""
        check_choice(self, "kind", get_args(Decoder))
        usable = 0 <= self.auxiliary_weight <= LARGEST
        check_field(self, "auxiliary_weight", usable, f"from 0 to {LARGEST:g}")
        if self.kind == "linear":
            check_field(self, "channels", not self.channels, "() with kind 'linear'")
        if self.kind != "upernet":
            without = f"0 with kind {self.kind!r}"
            check_field(self, "auxiliary_weight", self.auxiliary_weight == 0, without)
            check_field(self, "dropout", self.dropout == 0, without)
        if self.kind in _UNETS:
            self.unet()
        if self.kind == "upernet":
            count = 2 if self.auxiliary_weight else 1
            one = "the channels of its maps" + (" and of the auxiliary head" if count == 2 else "")
            check_field(self, "channels", len(self.channels) == count, one)
            least = min(self.channels) >= 1
            check_field(self, "channels", least, "positive integers")
            self.upernet()

    def unet(self) -> UNetDecoderConfig:
        """Returns the sizes of a U-Net's decoder."""
        return UNetDecoderConfig(channels=self.channels, form=_UNETS[self.kind])

    def upernet(self) -> UPerNetConfig:
        """Returns the sizes of UPerNet's decoder."""
        auxiliary = self.channels[1] if self.auxiliary_weight else None
        return UPerNetConfig(channels=self.channels[0], auxiliary=auxiliary, dropout=self.dropout)

    def check_fits(self, resnet: ResNetConfig) -> None:
        """Refuses a U-Net that does not lead back to the size of the image."""
        if self.kind in _UNETS:
            self.unet().check_fits(resnet)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmentationConfig:
    """Configuration of the objective "segmentation", the section `config.model`.

    Attributes:
      dtype: dtype of the computation of encoder and decoder; parameters, logits and losses are
        float32.
      image: configuration of the image encoder, as for the other objectives, with the pool "mean":
        the decoder reads the maps of the ResNet.
      decoder: the decoder.
      classes: names of the K classes, each the label of regions of the set, or one name for all
        labels of `config.data.regions.any_of`.
      loss: "mixed" is 10 times the focal loss minus the logarithm of the Dice coefficient (GLoRIA,
        MGCA); "dice" is one minus the Dice coefficient of all pixels of the batch (LoVT). Both ask
        about each class by itself. "cross_entropy" is the cross-entropy of a softmax over the
        background and the classes (BenchX), and leaves out pixels of several classes.
      encoder_rate: factor on the learning rate of the encoder; 1 for the rate of the decoder.
      drifting_statistics: whether the encoder's batch normalisation stays in training mode while
        the encoder is frozen, so that its statistics drift (MGCA's release, quirk M31). LoVT's and
        BenchX's releases keep them as they are.
    """

    dtype: ComputeDtype
    image: ImageEncoderConfig
    decoder: DecoderConfig
    classes: tuple[str, ...]
    loss: MaskLoss
    encoder_rate: float
    drifting_statistics: bool

    def __post_init__(self):
        """Refuses configuration values that are inconsistent."""
        check_choice(self, "dtype", get_args(ComputeDtype))
        check_choice(self, "loss", get_args(MaskLoss))
        resnet, side = self.image.resnet, self.image.image_size
        if self.image.pool != "mean":
            raise ConfigError.of_value("image.pool", self.image.pool, "'mean'")
        if self.decoder.kind in _UNETS and side % resnet.stride:
            must_be = f"a multiple of {resnet.stride}, the pixels of a cell of the last map"
            raise ConfigError.of_value("image.image_size", side, must_be)
        with in_section("decoder"):
            self.decoder.check_fits(resnet)
        check_classes(self.classes, where="classes")
        check_field(self, "encoder_rate", self.encoder_rate > 0, "a number above 0")

    @property
    def exclusive(self) -> bool:
        """Returns whether a pixel has exactly one class, or none, which is the background."""
        return self.loss == "cross_entropy"

    @property
    def logits(self) -> int:
        """Returns the number of logits of each pixel; the background has one if it is a class."""
        return len(self.classes) + self.exclusive
