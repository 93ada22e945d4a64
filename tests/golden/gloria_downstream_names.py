"""Torch names of the classifier that GLoRIA's release fine-tunes."""

from prior_jax.interop.torch.names import Table, linear_table


def image_classifier_table(encoder: Table) -> Table:
    """Returns the table from PretrainedImageClassifier to `nn.classifier.ImageClassifier`.

    PretrainedImageClassifier is the classifier of GLoRIA's release.

    Args:
      encoder: table of the classifier's image encoder.
    """
    table = encoder.under("img_encoder.", ("encoder",))
    return table + linear_table("classifier", ("classifier",))
