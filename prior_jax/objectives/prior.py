"""The PRIOR objective: three stages of alignment, prototypes and reconstruction."""

import copy
import functools

import jax
import jax.numpy as jnp
from flax import nnx

from prior_jax.errors import ConfigError
from prior_jax.losses import matching, reconstruction
from prior_jax.losses.normalize import unit
from prior_jax.nn.prototype_bank import Axis, bank_temperature
from prior_jax.nn.sentence_gather import compact_sentences, fit_sentences
from prior_jax.objectives import prior_inference
from prior_jax.objectives.all_pairs import PLAIN, AllPairs
from prior_jax.objectives.base import TextUnit
from prior_jax.objectives.prior_config import STAGES, PriorConfig
from prior_jax.objectives.prior_model import PriorModel
from prior_jax.objectives.prior_terms import (
    AlignedPairs,
    Replay,
    StepKeys,
    alignment_terms,
    image_term,
    step_metrics,
)
from prior_jax.objectives.sentence_region import (
    SENTENCE_REGION,
    SeesRegions,
    encode_with_hidden,
)
from prior_jax.types import Batch, ImageFeatures, LossTerms, ReportFeatures

# The parts that a stage does not use yet (quirk P13).
_IDLE = {
    "stage1": ("sentence_bank", "prototype_queries", "sentence_decoder", "image_decoder"),
    "stage2": ("prototype_queries", "sentence_decoder", "image_decoder"),
    "stage3": (),
}


class PriorObjective(SeesRegions):
    """PRIOR, arXiv:2307.12577, trained as in the authors' release.

    Stage 1 aligns images with sentences, stage 2 aligns images with sentence prototypes, and stage
    3 also reconstructs each modality from the other. Implements `objectives.base.Objective`.
    """

    stages = STAGES

    def __init__(
        self,
        config: PriorConfig,
        *,
        bank_axis: Axis | None = None,
        batch_axis: Axis | None = None,
        all_pairs: AllPairs = PLAIN,
    ):
        """Keeps the configuration.

        Args:
          config: configuration, the section `config.model`.
          bank_axis: mesh axis (or axes) over which the bank is split; None for a bank that is not
            split.
          batch_axis: mesh axis (or axes) over which batches are split; each device then solves the
            matching of its own rows. None on one device. With either axis, every call must run
            under `jax.jit` and `jax.set_mesh`.
          all_pairs: form in which the losses over all pairs of the batch are computed.
        """
        self.config = config
        self.all_pairs = all_pairs
        self.bank_axis = bank_axis
        self.batch_axis = batch_axis
        # Whether `encode_report` replaces sentences by mixtures of prototypes; see `in_stage`.
        self.encodes_prototypes = True

    def in_stage(self, stage: str) -> "PriorObjective":
        """Returns the objective that encodes reports as its models are trained in the stage.

        Stage 1 aligns the sentences themselves, and its prototypes are random vectors.
        """
        encodes_prototypes = _known(stage) != "stage1"
        if encodes_prototypes == self.encodes_prototypes:
            return self
        found = copy.copy(self)
        found.encodes_prototypes = encodes_prototypes
        return found

    def init(self, rngs: nnx.Rngs) -> PriorModel:
        """Builds the model with fresh parameters."""
        return PriorModel(self.config, bank_axis=self.bank_axis, rngs=rngs)

    def weights(self, stage: str) -> dict[str, float]:
        """Returns the weight of each term from the configuration, by the term's name."""
        return dict(self.config.weights[_known(stage)])

    def local_terms(self, stage: str) -> tuple[str, ...]:
        """Returns the names of the terms between parts of an image and sentences."""
        return self.config.local_terms(_known(stage))

    def trainable(self, stage: str, path: tuple[str, ...]) -> bool:
        """Returns whether the parameter at `path` receives a gradient in the stage (quirk P13)."""
        path = tuple(str(part) for part in path)
        return path[0] not in _IDLE[_known(stage)] and path[:2] != ("text_encoder", "pooler")

    def temperature(self, step: jax.Array) -> jax.Array:
        """Returns the bank's temperature after `step` optimizer steps: float32[]."""
        bank = self.config.bank
        step = jnp.maximum(step - bank.start_step, 0)
        if self.config.choices.clip_temperature:
            step = jnp.minimum(step, bank.steps)
        return bank_temperature(
            step, start=bank.temperature, schedule=bank.schedule, total_steps=bank.steps
        )

    def loss_terms(
        self,
        model: PriorModel,
        batch: Batch,
        *,
        stage: str,
        step: jax.Array,
        key: jax.Array | None,
        train: bool = True,
        replay: Replay | None = None,
    ) -> LossTerms:
        """Computes named, unweighted terms of one global batch; see `objectives.base.Objective`.

        Args:
          model: model built by `init`; if `train`, its batch statistics are updated in place.
          batch: whole global batch; rows of weight 0, and reports without a sentence,
            contribute to no term.
          stage: name of the stage: "stage1", "stage2" or "stage3".
          step: number of optimizer steps done so far over all stages, int32[].
          key: random key of this step's noise and dropout; None only where nothing is drawn.
          train: whether the step trains; validation has no dropout and running statistics.
          replay: choices that are repeated instead of being made anew.

        Returns:
          The terms of the stage and metrics: scales, bank temperature and bank usage. Terms on
          sentences are means over the sentences of the global batch (quirk P20).

        Raises:
          ConfigError: for an unknown stage.
        """
        _known(stage)
        replay = replay or Replay()
        keys = StepKeys.of(key)
        temperature = self.temperature(step)
        pairs = self._align(
            model, batch, stage=stage, temperature=temperature, keys=keys, train=train,
            noise=replay.noise,
        )  # fmt: skip
        terms = alignment_terms(model, pairs, self.all_pairs)
        if pairs.lookup is not None:
            terms["prototype"] = reconstruction.prototype_l1(
                pairs.sentences, pairs.lookup.prototypes, weight=pairs.sentence_weight
            )
        if stage == "stage3":
            terms["image_reconstruction"] = image_term(
                model, pairs, batch, train=train, key=keys.image_decoder
            )
            terms |= self.report_terms(
                model, pairs, temperature=temperature, keys=keys, train=train, replay=replay
            )
        return LossTerms(terms=terms, metrics=step_metrics(model, pairs, temperature))

    def _align(
        self,
        model: PriorModel,
        batch: Batch,
        *,
        stage: str,
        temperature: jax.Array,
        keys: StepKeys,
        train: bool,
        noise: jax.Array | None,
    ) -> AlignedPairs:
        image, regions, region_mask = encode_with_hidden(
            functools.partial(model.encode_regions, train=train),
            batch.image,
            config=self.config.sentence_region,
            spacing=self.patch_spacing,
            key=keys.hidden_regions,
            hides=train and self.config.weights[stage].get(SENTENCE_REGION, 0) > 0,
        )
        sentences, mask = model.encode_sentences(
            batch.tokens, batch.token_mask, batch.sentence_index, batch.sentence_mask,
            train=train, key=keys.text,
        )  # fmt: skip
        if stage == "stage3":
            sentences, mask = compact_sentences(sentences, mask)
            sentences, mask = fit_sentences(sentences, mask, num_sentences=self.config.num_queries)
        lookup, aligned = None, sentences
        if stage != "stage1":
            if noise is None:
                noise = self._noise(model, keys.bank, mask, train=train)
            lookup = model.sentence_bank(sentences, mask, temperature=temperature, noise=noise)
            aligned = lookup.prototypes
        return AlignedPairs(
            image=image,
            regions=regions,
            region_mask=region_mask,
            sentences=sentences,
            lookup=lookup,
            aligned=aligned,
            mask=mask,
            context=model.attend(image.local, aligned, mask),
            report=model.global_text_attention(aligned, mask),
            weight=jnp.where(jnp.any(mask, axis=1), batch.weight, jnp.float32(0)),
        )

    def _noise(
        self, model: PriorModel, key: jax.Array | None, mask: jax.Array, *, train: bool
    ) -> jax.Array | None:
        if not (train or self.config.choices.noise_at_inference):
            return None
        if key is None:
            raise ValueError("the bank's noise needs a key, got None")
        return model.sentence_bank.gumbel(key, batch=mask.shape[0], rows=mask.shape[1])

    def report_terms(
        self,
        model: PriorModel,
        pairs: AlignedPairs,
        *,
        temperature: jax.Array,
        keys: StepKeys,
        train: bool,
        replay: Replay,
    ) -> dict[str, jax.Array]:
        """Computes the terms of predicted sentence prototypes, with sentences compacted to Q."""
        if pairs.lookup is None:
            raise ValueError("predicting prototypes needs the sentences' lookup")
        choices = self.config.choices
        predicted = model.decode_sentences(
            pairs.image.local, train=train, key=keys.sentence_decoder
        )
        col_ind = replay.col_ind
        if col_ind is None:
            col_ind = self.match(predicted, pairs.aligned, pairs.mask)
        predicted = matching.arrange(predicted, col_ind, inverse=choices.inverse_permutation)
        noise = replay.second_noise
        if noise is None:
            noise = self._noise(model, keys.second_bank, pairs.mask, train=train)
        lookup = model.sentence_bank(predicted, pairs.mask, temperature=temperature, noise=noise)
        report = model.global_text_attention(lookup.prototypes, pairs.mask)
        return {
            "sentence_prototype": reconstruction.matched_l1(
                predicted, pairs.aligned, mask=pairs.mask, weight=pairs.weight,
                ignore_padding=choices.ignore_padding,
            ),
            "prototype_kl": reconstruction.prototype_kl(
                pairs.lookup.logits, lookup.logits, weight=pairs.sentence_weight,
                stop_target_gradient=choices.stop_kl_target,
            ),
            "global_prototype": self.all_pairs.paired_contrastive(
                unit(report), unit(pairs.report), scale=model.scale(), weight=pairs.weight
            ),
        }  # fmt: skip

    def match(self, predicted: jax.Array, targets: jax.Array, mask: jax.Array) -> jax.Array:
        """Matches predicted prototypes to targets by least total L1 distance: int32[B, Q].

        Args:
          predicted: predicted prototypes, [B, Q, D].
          targets: target prototypes, [B, Q, D], 0 where `mask` is False.
          mask: mask of the real targets, bool[B, Q].

        Returns:
          The target of each predicted prototype (col_ind). In the paper's mode absent targets cost
          nothing; in the release's mode they are matched as zero vectors (quirk P4).
        """
        cost = matching.pairwise_cost(predicted, targets, metric="l1", normalize=False)
        if self.config.choices.ignore_padding:
            cost = matching.ignore_absent_targets(cost, mask)
        if self.config.choices.break_ties:
            cost = matching.break_ties(cost)
        return matching.assign(cost, axis=self.batch_axis)

    def encode_report(
        self,
        model: PriorModel,
        tokens: jax.Array,
        token_mask: jax.Array,
        sentence_index: jax.Array,
        sentence_mask: jax.Array,
        *,
        key: jax.Array | None = None,
        noise: jax.Array | None = None,
    ) -> ReportFeatures:
        """Encodes reports in inference mode; see `prior_inference.encode_report`."""
        bank = self.config.bank
        end = jnp.asarray(bank.start_step + bank.steps, jnp.int32)
        return prior_inference.encode_report(
            model, tokens, token_mask, sentence_index, sentence_mask,
            temperature=self.temperature(end), key=key, noise=noise,
            prototypes=self.encodes_prototypes,
        )  # fmt: skip

    def similarity(
        self, model: PriorModel, images: ImageFeatures, reports: ReportFeatures
    ) -> jax.Array:
        """Returns the global logit + half the local score: float32[Bi, Br].

        See `prior_inference`.
        """
        return prior_inference.similarity(model, images, reports)

    def similarity_parts(
        self, model: PriorModel, images: ImageFeatures, reports: ReportFeatures
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the global logits and the local scores: float32[Bi, Br] each.

        See `prior_inference`.
        """
        scores = prior_inference.pair_scores(model, images, reports, batches_of_one=True)
        return scores.global_, scores.local

    @property
    def text_unit(self) -> TextUnit:
        """Returns "sentence": reports are aligned by the sentence."""
        return "sentence"

    def text_attention(
        self, model: PriorModel, images: ImageFeatures, reports: ReportFeatures
    ) -> jax.Array:
        """Returns each sentence's attention over patches: float32[B, S, P].

        See `prior_inference`.
        """
        return prior_inference.text_attention(model, images, reports)

    @property
    def num_prototypes(self) -> int:
        """Returns the number of prototypes in the bank."""
        return self.config.bank.num_prototypes

    def prototype_choice(
        self,
        model: PriorModel,
        tokens: jax.Array,
        token_mask: jax.Array,
        sentence_index: jax.Array,
        sentence_mask: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """Returns each sentence's most probable prototype; see `prior_inference`."""
        bank = self.config.bank
        end = jnp.asarray(bank.start_step + bank.steps, jnp.int32)
        return prior_inference.prototype_choice(
            model, tokens, token_mask, sentence_index, sentence_mask,
            temperature=self.temperature(end),
        )  # fmt: skip

    def reconstruct(
        self, model: PriorModel, batch: Batch, *, key: jax.Array | None = None
    ) -> jax.Array:
        """Reconstructs the batch's images with their reports: float32[B, H, W, C].

        The reconstruction runs in inference mode and is in the normalised scale of the images; for
        `key` see `encode_report`. It is meaningful only for a model that was trained in stage 3.
        """
        reports = self.encode_report(
            model, batch.tokens, batch.token_mask, batch.sentence_index, batch.sentence_mask,
            key=key,
        )  # fmt: skip
        return prior_inference.reconstruct(model, batch.image, reports)


def _known(stage: str) -> str:
    if stage not in STAGES:
        raise ConfigError(
            f"The objective has no stage {stage!r}.", f"Use one of the stages {', '.join(STAGES)}."
        )
    return stage
