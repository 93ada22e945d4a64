"""The base of every PRIOR config: the settings of the release, each value with its source.

Sources: [yaml] release, configs/experiments/pre_train/train_prior.yaml; [prior.py], [spb.py],
[sentence.py] release, codes/prior/...; [bert] the config of Bio_ClinicalBERT; [torch] defaults of
torch 1.10. `prior_jax/config.py` derives the settings that follow from others (image size of the
encoder, vocabulary, steps of the bank's schedule).
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(fidelity: str = "paper") -> ConfigDict:
    """Returns the settings in one fidelity, for one device or many."""
    release = fidelity == "release"
    return ConfigDict(
        dict(
            name=f"prior_{fidelity}",
            seed=114514,  # release, codes/scripts/pre_train.py
            objective="prior",
            model=model(fidelity),
            data=data(release=release),
            prepare=dict(phantom=None, vocab_size=8192),
            init=dict(image=drawn(), text=drawn()),
            quick_compile=False,  # True skips compiler optimisations, for runs of a few steps
            stage_unit="epochs",
            stages=dict(
                stage1=stage(length=20, warmup=1, peak=1e-5, start=1e-7),  # [yaml]
                stage2=stage(length=30, warmup=1, peak=1e-5, start=1e-7),  # [yaml]
                stage3=stage(length=100, warmup=5, peak=5e-6, start=1e-8),  # [yaml]
            ),
            optimizer=optimizer(release=release),
            mesh=dict(
                axes=dict(data=-1),
                data_axes=("data",),
                bank_axis=placeholder(str),
                rules=(),
                all_pairs=dict(form="gathered", chunk=1024),  # "ring" for large batches
            ),
            checkpoint=dict(
                directory=placeholder(str),  # checkpoints/ in the workdir; gs:// and s3:// too
                every_steps=1000,
                keep_last=2,
                keep_best=1,
                best_metric="validation_global_alignment_loss",
                best_is="lowest",
            ),
            log=dict(
                every_steps=20, tensorboard=True, wandb_project=placeholder(str), progress=True
            ),
            watchdog=dict(warn_seconds=300.0, end_seconds=1800.0, compile_seconds=3600.0),
            validate_every=2000,  # 0 or None for never
            evaluate_every=0,  # 0 or None for never; counts what validate_every counts
            evaluate=evaluate(),
            early_stopping=None,
            after=(),
        )
    )


def evaluate() -> dict:
    """Returns what is measured while training, with the prompts and classes of configs/eval."""
    return dict(
        tasks=(),  # () for all that the objective and the set allow
        split="validate",
        studies=512,
        bank=2048,
        seed=0,
        batch_size=64,
        classes=(),
        exclude=("Lung Opacity", "Support Devices"),  # as in configs/eval/zero_shot.py
        min_positives=3,
        prompts="described",
        negatives=True,
        ranks=(1, 5, 10),
        neighbours=20,  # DINO, arXiv:2104.14294, sec. 4.1
        temperature=0.07,  # arXiv:1805.01978, sec. 3.4
        policy=dict(uncertain="ignore", unmentioned="negative"),
    )


def drawn() -> dict:
    """Returns random initial weights; name other weights with --config.init.image.path=DIR.

    Of a run, the newest checkpoint is taken (of a training of the task "finetune", the one that was
    measured), or that of --config.init.image.step.
    """
    return dict(path=placeholder(str), step=placeholder(int), adapt=())


def stage(*, length: float, warmup: float, peak: float, start: float) -> dict:
    """Returns one stage, whose cosine ends at 0 and whose weight decay is 1e-6 [yaml]."""
    return dict(
        length=length,
        warmup=warmup,
        schedule="cosine",
        plateau=None,
        learning_rate=peak,
        learning_rate_start=start,
        learning_rate_end=0.0,
        weight_decay=1e-6,
    )


def optimizer(*, release: bool) -> dict:
    """Returns AdamW, with the weight decay of the stages."""
    return dict(
        beta1=0.9,  # [torch]
        beta2=0.999,  # [torch]
        epsilon=1e-8,  # [torch]
        decay="decoupled",  # release, codes/prior/models/prior.py: AdamW
        decay_mask="all" if release else "matrices",  # release: all (quirk P16)
        clip_norm=placeholder(float),  # release: no clipping
        past_end="rise" if release else "hold",  # quirk P15
        accumulate_steps=1,  # release: no accumulation
    )


def model(fidelity: str) -> dict:
    """Returns the model: ResNet-50, BERT-base and PRIOR's heads."""
    return dict(
        fidelity=fidelity,
        switched_choices=(),
        dtype="bfloat16",  # the release trains in fp16 [yaml]
        image=dict(
            resnet=dict(
                depths=(3, 4, 6, 3), width=64, block="bottleneck", stem_pool=True, remat="none"
            ),
            pool="attention",  # [yaml]
            pool_heads=8,  # release, codes/prior/encoders/image/resnet.py
        ),
        text=dict(  # [bert]
            hidden_size=768,
            layers=12,
            heads=12,
            intermediate_size=3072,
            dropout=0.1,
            max_positions=512,
            token_types=2,
            scan_layers=True,
            remat="none",
        ),
        embed_dim=768,  # [yaml]
        sentence_pool="mean",  # [yaml], gahter_pool: avg
        sentence_heads=8,  # release, codes/prior/modules/sentence_pool.py
        temperature=0.01,  # [yaml]
        local_temperature=0.01,  # [yaml]
        num_queries=16,  # [yaml]
        sentence_region=None,  # the release has none; see configs/prior/improved.py
        bank=dict(num_prototypes=512, temperature=0.9, schedule="fixed"),  # [yaml], [spb.py]
        sentence_decoder=dict(  # [sentence.py], [bert]
            layers=8,
            heads=12,
            intermediate_size=3072,
            dropout=0.1,
            max_positions=512,
            token_types=2,
            scan_layers=True,
            remat="none",
        ),
        image_decoder=dict(dropout=0.5),  # [yaml], image_rec_drop_out_rate
        weights=weights(),  # [prior.py], quirk P10
    )


def weights() -> dict:
    """Returns the weight of each loss term, by stage."""
    return dict(
        stage1=dict(global_alignment=1.0, local_image=1.0, local_text=1.0),
        stage2=dict(global_alignment=1.0, local_image=1.0, local_text=1.0, prototype=10.0),
        stage3=dict(
            global_alignment=10.0,
            local_image=1.0,
            local_text=1.0,
            prototype=10.0,
            image_reconstruction=1.0,
            sentence_prototype=10.0,
            prototype_kl=1.0,
            global_prototype=1.0,
        ),
    )


def data(*, release: bool) -> dict:
    """Returns the data: images of 224 pixels, reports of 256 tokens, batches of 6 x 98 [yaml]."""
    return dict(
        path=placeholder(str),
        image=dict(
            size=224,  # release, configs/image_transformation.yaml
            channels=1,  # release, configs/data/mimiccxr.yaml
            # Pixel statistics of the release, or of the prepared set.
            mean=(0.4755,) if release else placeholder(tuple),
            std=(0.3011,) if release else placeholder(tuple),
            fit="stretch",  # release, configs/image_transformation.yaml
            equalize=False,
            to_white=False,
            draft_margin=None if release else 1,  # the release decodes every pixel
        ),
        augment=dict(
            rotation_degrees=5.0,  # release, configs/image_transformation.yaml
            flip_probability=0.5 if release else 0.0,  # reports name left and right (quirk P32)
        ),
        tokenizer=dict(
            kind="wordpiece" if release else "sentencepiece",
            path=placeholder(str),
            lower_case=True,  # quirk P35
        ),
        caption="report",
        text_mode="release" if release else "paper",
        text_sources=("report",),
        shuffle_sentences=True,  # release, codes/prior/data/pretrain/mimiccxr.py
        max_tokens=256,  # [yaml]
        max_sentences=32,
        buckets=(256,) if release else (64, 96, 128, 192, 256),
        bucket_window=1 if release else 8,
        batch_size=588,  # [yaml]: 6 GPUs x 98
        workers=8,
        threads=4,
        prefetch=2,
        memory_cache=0,
    )
