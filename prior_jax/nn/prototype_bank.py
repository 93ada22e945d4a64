"""The sentence prototype bank: a soft lookup over K vectors, which may be sharded over devices."""

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec

Axis = str | tuple[str, ...]


@flax.struct.dataclass
class Lookup:
    """Result of a soft lookup.

    Attributes:
      prototypes: weighted sum of the prototypes, [..., D], 0 in masked rows.
      logits: dot products with the bank, float32[..., K], without noise or temperature.
      probability: weights of the sum, float32[..., K].
    """

    prototypes: jax.Array
    logits: jax.Array
    probability: jax.Array


class PrototypeBank(nnx.Module):
    """K learned vectors and the soft selection among them.

    The bank may be sharded over K: with `axis` set, every array with a K axis (logits, noise,
    probabilities and their gradients) is constrained to that mesh axis, so a device holds K / n
    prototypes and K / n columns. Rows that are sharded over the same axis are gathered, since they
    are far smaller. Only sums over K cross devices. The noise does not depend on the sharding.

    Source: PRIOR, arXiv:2307.12577, section 3.3; release, codes/prior/modules/spb.py.
    """

    def __init__(
        self,
        num_prototypes: int,
        embed_dim: int,
        *,
        axis: Axis | None,
        dtype: jax.typing.DTypeLike,
        rngs: nnx.Rngs,
    ):
        """Draws the bank from N(0, 1), as torch's `nn.Embedding` does.

        Args:
          num_prototypes: number K of prototypes.
          embed_dim: size D of the embeddings.
          axis: mesh axis (or axes) over which K is split; None for no constraint. With an axis,
            every call must run under `jax.jit` and `jax.set_mesh`, with axes of type Auto.
          dtype: compute dtype of the products; parameters, noise and softmax are float32.
          rngs: source of the initial parameters.
        """
        draw = jax.random.normal(rngs.params(), (num_prototypes, embed_dim), jnp.float32)
        self.embed = nnx.Param(draw)
        self.axis = axis
        self.dtype = dtype

    def logits(self, rows: jax.Array) -> jax.Array:
        """Computes dot products of rows [..., D] with the bank: float32[..., K]."""
        embed_dim = self.embed.shape[1]
        if rows.shape[-1] != embed_dim:
            raise ValueError(f"rows {rows.shape}: accepted [..., {embed_dim}]")
        embed = self.embed[...].astype(self.dtype)
        score = jnp.einsum(
            "...d,kd->...k", rows.astype(self.dtype), embed, preferred_element_type=jnp.float32
        )
        return self._split(score)

    def __call__(
        self,
        rows: jax.Array,
        mask: jax.Array,
        *,
        temperature: jax.Array,
        noise: jax.Array | None = None,
    ) -> Lookup:
        """Replaces each row by a mixture of prototypes: softmax((logits + noise) / temperature).

        Args:
          rows: sentence embeddings, [B, S, D].
          mask: mask of the real rows, bool[B, S].
          temperature: temperature of the softmax, float32[], > 0.
          noise: noise added to the logits (see `gumbel`), float32[B, S, K]; None for no noise.

        Returns:
          The lookup; masked rows give prototypes of 0 and no gradient.
        """
        logits = self.logits(rows)
        scaled = logits if noise is None else self._split(logits + noise)
        probability = self._split(jax.nn.softmax(scaled / temperature, axis=-1))
        mixed = jnp.einsum(
            "...k,kd->...d",
            probability.astype(self.dtype),
            self.embed[...].astype(self.dtype),
            preferred_element_type=jnp.float32,
        )
        mixed = jnp.where(mask[..., None], mixed, jnp.float32(0)).astype(rows.dtype)
        return Lookup(prototypes=mixed, logits=logits, probability=probability)

    def gumbel(self, key: jax.Array, *, batch: int, rows: int) -> jax.Array:
        """Draws standard Gumbel noise for `batch` reports of `rows` sentences.

        A number depends only on the key, its report, its sentence and its prototype, and not on the
        padding of the batch or report or on the sharding of the bank.

        Args:
          key: a random key.
          batch: number B of reports.
          rows: number S of sentences.

        Returns:
          Noise, float32[B, S, K], drawn in float32 whatever the compute dtype (quirk P42).
        """
        shape = (rows, self.embed.shape[0])

        def report(index: jax.Array) -> jax.Array:
            return jax.random.gumbel(jax.random.fold_in(key, index), shape, jnp.float32)

        return self._split(jax.vmap(report)(jnp.arange(batch, dtype=jnp.uint32)))

    def usage(self, lookup: Lookup, weight: jax.Array) -> jax.Array:
        """Computes the perplexity of the prototypes that real sentences select.

        It is the effective number of prototypes in use.

        Args:
          lookup: lookup of rows [B, S].
          weight: weight of each sentence, float32[B, S], 1 for a real sentence, 0 on padding.

        Returns:
          Perplexity, float32[], from 1 (one prototype gets all) to min(K, sentences); 1 without a
          sentence. It has no gradient.
        """
        probability = jax.lax.stop_gradient(lookup.probability)
        choice = jnp.argmax(probability, axis=-1)
        slots = self._split(jnp.arange(probability.shape[-1], dtype=choice.dtype))
        chosen = choice[..., None] == slots[None, None, :]
        chosen = self._split(jnp.where(chosen, weight[..., None], jnp.float32(0)))
        count = self._split(jnp.sum(chosen, axis=(0, 1)))
        share = count / jnp.maximum(jnp.sum(weight), 1.0)
        return jnp.exp(-jnp.sum(jax.scipy.special.xlogy(share, share)))

    def _split(self, x: jax.Array) -> jax.Array:
        """Constrains the last axis, K, to the bank's mesh axis; leaves the other axes free."""
        if self.axis is None:
            return x
        free = [PartitionSpec.UNCONSTRAINED] * (x.ndim - 1)
        return jax.lax.with_sharding_constraint(x, PartitionSpec(*free, self.axis))


def bank_temperature(
    step: jax.Array,
    *,
    start: float,
    schedule: str,
    total_steps: int,
) -> jax.Array:
    """Computes the temperature of the lookup after `step` steps in which the bank is used.

    Args:
      step: number of steps since the first step that uses the bank, int32[].
      start: temperature at step 0.
      schedule: name of the schedule: "fixed"; "linear", which falls linearly to a tenth of `start`;
        or "exp", which falls geometrically to a tenth.
      total_steps: number of steps after which a tenth is reached; the formulas continue beyond it.

    Returns:
      Temperature, float32[].

    Raises:
      ValueError: for another schedule.

    Source: release, codes/prior/modules/spb.py, `set_temp`.
    """
    fraction = step.astype(jnp.float32) / jnp.float32(total_steps)
    if schedule == "fixed":
        return jnp.full((), start, jnp.float32)
    if schedule == "linear":
        return start - 0.9 * start * fraction
    if schedule == "exp":
        return start * jnp.float32(0.1) ** fraction
    raise ValueError(f"schedule {schedule!r}: accepted 'fixed', 'linear', 'exp'")
