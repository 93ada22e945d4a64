"""A tiny objective whose similarity is a scaled dot product, for tests of the evaluation."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from prior_jax.types import Batch, ImageFeatures, ReportFeatures

FEATURES = 4


class FakeModel(nnx.Module):
    """Scales the features; the state that a trained and an untrained model differ in."""

    def __init__(self, scale: float = 1.0):
        self.scale = nnx.Param(jnp.asarray(scale, jnp.float32))


class FakeObjective:
    """Features are given: an image's pixels, a report's first tokens over 100."""

    def __init__(self):
        self.traced = []

    def encode_image(self, model, image):
        self.traced.append(("image", image.shape))
        local = image.reshape(image.shape[0], -1, FEATURES)
        vector = local[:, 0] * model.scale[...]
        return ImageFeatures(local=local, global_=vector, pooled=vector)

    def embed_patches(self, model, image):
        return self.encode_image(model, image).local

    def encode_report(self, model, tokens, token_mask, sentence_index, sentence_mask):
        self.traced.append(("report", tokens.shape))
        vector = tokens[:, :FEATURES].astype(jnp.float32) / jnp.float32(100)
        sentences = jnp.where(sentence_mask[..., None], vector[:, None], jnp.float32(0))
        return ReportFeatures(local=sentences, local_mask=sentence_mask, global_=vector)

    def similarity(self, model, images, reports):
        return images.global_ @ reports.global_.T


def make_batches(vectors, tokens, labels, *, batch_size, lengths=(8,), sentences=(2,)):
    """Cuts N studies into batches, the last one filled with rows of weight 0."""
    count, batches = len(vectors), []
    for number, start in enumerate(range(0, count, batch_size)):
        rows = np.arange(start, start + batch_size)
        real = rows < count
        taken = np.minimum(rows, count - 1)
        length = lengths[number % len(lengths)]
        longest = sentences[number % len(sentences)]
        padded = np.zeros((batch_size, length), np.int32)
        padded[:, :FEATURES] = tokens[taken]
        batches.append(
            Batch(
                image=vectors[taken].reshape(batch_size, 1, 1, FEATURES).astype(np.float32),
                tokens=padded,
                token_mask=padded > 0,
                sentence_index=np.zeros((batch_size, length), np.int32),
                sentence_mask=np.ones((batch_size, longest), bool),
                labels=labels[taken].astype(np.int8),
                weight=real.astype(np.float32),
                record=np.where(real, rows, -1).astype(np.int32),
            )
        )
    return batches
