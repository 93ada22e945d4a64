"""The sentence prototype bank: a soft lookup over K vectors that may live on many devices."""

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
      prototypes: [..., D], the weighted sum of prototypes, 0 in masked rows.
      logits: float32[..., K], dot products with the bank, without noise or temperature.
      probability: float32[..., K], the weights of the sum.
    """

    prototypes: jax.Array
    logits: jax.Array
    probability: jax.Array


class PrototypeBank(nnx.Module):
    """K learned vectors and the soft choice among them.

    The bank may be sharded over K: with `axis` set, every array with a K axis (logits, noise,
    probabilities and their gradients) is constrained to that mesh axis, so a device holds K / n
    prototypes and K / n columns; rows that lay on the same axis are gathered, being far smaller.
    Only sums over K cross devices. The noise does not depend on the placement.

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
        """Draws the bank from N(0, 1), as torch's `nn.Embedding`.

        Args:
          num_prototypes: K.
          embed_dim: D.
          axis: mesh axis (or axes) over which K is split, None for no constraint. With one, every
            call must run under `jax.jit` and `jax.set_mesh`, axes of type Auto.
          dtype: compute dtype of the products; parameters, noise and softmax are float32.
          rngs: source of the initial parameters.
        """
        draw = jax.random.normal(rngs.params(), (num_prototypes, embed_dim), jnp.float32)
        self.embed = nnx.Param(draw)
        self.axis = axis
        self.dtype = dtype

    def logits(self, rows: jax.Array) -> jax.Array:
        """Dot products of rows [..., D] with the bank: float32[..., K]."""
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
          rows: [B, S, D].
          mask: bool[B, S], True on real rows.
          temperature: float32[], > 0.
          noise: float32[B, S, K] added to the logits (see `gumbel`), None for none.

        Returns:
          The lookup; masked rows give prototypes 0 and no gradient.
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
        """Standard Gumbel noise for `batch` reports of `rows` sentences.

        A number depends on the key, its report, its sentence and its prototype alone: not on how
        far the batch or the report is padded, nor on where the bank lies.

        Args:
          key: a random key.
          batch: B.
          rows: S.

        Returns:
          float32[B, S, K], drawn in float32 whatever the compute dtype (quirk P42).
        """
        shape = (rows, self.embed.shape[0])

        def report(index: jax.Array) -> jax.Array:
            return jax.random.gumbel(jax.random.fold_in(key, index), shape, jnp.float32)

        return self._split(jax.vmap(report)(jnp.arange(batch, dtype=jnp.uint32)))

    def usage(self, lookup: Lookup, weight: jax.Array) -> jax.Array:
        """Perplexity of the prototypes that real sentences choose: how many are in even use.

        Args:
          lookup: of rows [B, S].
          weight: float32[B, S], 1 on real sentences, 0 on padding.

        Returns:
          float32[], from 1 (one prototype takes all) to min(K, sentences); 1 without a sentence.
          A constant for the gradient.
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
        """Constrains the last axis, K, to the bank's mesh axis; leaves the others free."""
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
    """Temperature of the lookup after `step` steps with the bank in use.

    Args:
      step: int32[], counted from the first step that uses the bank.
      start: temperature at step 0.
      schedule: "fixed"; "linear" falls to a tenth of `start` in a straight line; "exp" falls to a
        tenth geometrically.
      total_steps: steps after which the tenth is reached; the formulas go on beyond it.

    Returns:
      float32[].

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
