"""Every source on checkpoints of its own names, small enough to make by hand."""

import dataclasses
import json
import re

import jax
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from prior_jax.data.wordpiece import WordPiece, bert_rules
from prior_jax.errors import ConfigError, WeightsError
from prior_jax.interop.huggingface.bert_directory import read_bert_directory
from prior_jax.interop.sources.accounting import render, summary
from prior_jax.interop.sources.imports import from_tensors, import_weights, release_state_dict
from prior_jax.interop.sources.plans import Unseen
from prior_jax.interop.sources.prior_names import prior_table
from prior_jax.interop.sources.table import SOURCES
from prior_jax.interop.torch.names import to_torch
from prior_jax.interop.weights_folder import load_weights, save_weights
from prior_jax.objectives.prior_model import PriorModel
from tests.objectives.tiny import tiny_config

WIDTH, HIDDEN, INNER, WORDS, PLACES = 4, 16, 24, 11, 8
HEADS = Unseen(heads=2)


def norm(name, size, *, statistics=True):
    yield f"{name}.weight", (size,)
    yield f"{name}.bias", (size,)
    if statistics:
        yield f"{name}.running_mean", (size,)
        yield f"{name}.running_var", (size,)
        yield f"{name}.num_batches_tracked", ()


def linear(name, outputs, inputs):
    yield f"{name}.weight", (outputs, inputs)
    yield f"{name}.bias", (outputs,)


def resnet(*, depths=(1, 2), channels=3, stem=("conv1", "bn1"), stages=("layer1", "layer2")):
    """Names and shapes of a ResNet of basic blocks."""
    yield f"{stem[0]}.weight", (WIDTH, channels, 7, 7)
    yield from norm(stem[1], WIDTH)
    inputs = WIDTH
    for number, depth in enumerate(depths):
        width = WIDTH * 2**number
        for block in range(depth):
            name = f"{stages[number]}.{block}"
            for i in (1, 2):
                yield f"{name}.conv{i}.weight", (width, inputs if i == 1 else width, 3, 3)
                yield from norm(f"{name}.bn{i}", width)
            if inputs != width:
                yield f"{name}.downsample.0.weight", (width, inputs, 1, 1)
                yield from norm(f"{name}.downsample.1", width)
            inputs = width


def attention_pool(features, grid):
    yield "positional_embedding", (grid * grid + 1, features)
    for name in ("k_proj", "q_proj", "v_proj", "c_proj"):
        yield from linear(name, features, features)


def bert(*, layers=2, pooler=True, words=WORDS):
    yield "embeddings.position_ids", (1, PLACES)
    yield "embeddings.word_embeddings.weight", (words, HIDDEN)
    yield "embeddings.position_embeddings.weight", (PLACES, HIDDEN)
    yield "embeddings.token_type_embeddings.weight", (2, HIDDEN)
    yield from norm("embeddings.LayerNorm", HIDDEN, statistics=False)
    for layer in range(layers):
        name = f"encoder.layer.{layer}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            yield from linear(f"{name}.attention.{part}", HIDDEN, HIDDEN)
        yield from norm(f"{name}.attention.output.LayerNorm", HIDDEN, statistics=False)
        yield from linear(f"{name}.intermediate.dense", INNER, HIDDEN)
        yield from linear(f"{name}.output.dense", HIDDEN, INNER)
        yield from norm(f"{name}.output.LayerNorm", HIDDEN, statistics=False)
    if pooler:
        yield from linear("pooler.dense", HIDDEN, HIDDEN)


def filled(shapes, prefix="", *, seed=0):
    """Random numbers; integers where torch has them."""
    random = np.random.default_rng(seed)
    tensors = {}
    for name, shape in shapes:
        if name.endswith("num_batches_tracked"):
            tensors[prefix + name] = np.array(7, np.int64)
        elif name.endswith("position_ids"):
            tensors[prefix + name] = np.arange(shape[1], dtype=np.int64)[None]
        else:
            tensors[prefix + name] = random.normal(size=shape).astype(np.float32)
    return tensors


def gloria(prefix="gloria."):
    features = 2 * WIDTH
    return {
        **filled(resnet(), f"{prefix}img_encoder.model."),
        **filled(linear("global_embedder", HIDDEN, features), f"{prefix}img_encoder."),
        **filled([("local_embedder.weight", (HIDDEN, WIDTH, 1, 1))], f"{prefix}img_encoder."),
        **filled(bert(), f"{prefix}text_encoder.model."),
    }


def mgca():
    towers = {
        **filled(resnet(), "img_encoder_q.model."),
        **filled(bert(pooler=False), "text_encoder_q.model."),
    }
    heads = filled(
        [("img_encoder_q.global_embed.head.0.weight", (3, 8)), ("prototype_layer.weight", (5, 3)),
         ("text_encoder_q.local_embed.head.1.num_batches_tracked", ()),
         ("word_local_atten_layer.in_proj_weight", (9, 3))]
    )  # fmt: skip
    return {**towers, **heads}


def prior():
    """A whole checkpoint of PRIOR, by the table of its names."""
    config = tiny_config(fidelity="release")
    model = nnx.eval_shape(lambda: PriorModel(config, bank_axis=None, rngs=nnx.Rngs(0)))
    state = nnx.to_pure_dict(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat)))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), state)
    named = to_torch(zeros, prior_table(config))
    return filled(
        [(name, array.shape) for name, array in named.items()]
        + list(linear("global_text_projection", config.embed_dim, config.text.hidden_size))
        + [("sentence_decoder.embeddings.word_embeddings.weight", (30, config.embed_dim)),
           ("image_encoder.encoder.bn1.num_batches_tracked", ())]
    )  # fmt: skip


PRIOR_HEADS = Unseen(heads=2, decoder_heads=2, pool_heads=2)


def same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert ours[name].dtype == array.dtype, name
        np.testing.assert_array_equal(ours[name], array, err_msg=name)


def counts(imported):
    found = [int(n) for n in re.findall(r"\d+", summary(imported.rows))]
    assert found[0] == sum(found[1:])
    return found


CHECKPOINTS = {
    "prior_resnet50.pt, flat": (
        "prior", {"part": "image"},
        lambda: {**filled(resnet(channels=1)), **filled(attention_pool(8, 2), "atten_pool.")},
    ),
    "prior_resnet50.pt, nested": (
        "prior", {},
        lambda: {
            **filled(resnet(channels=1), "encoder."),
            **filled(attention_pool(8, 2), "atten_pool."),
        },
    ),
    "prior_resnet50.pt without pool": ("prior", {}, lambda: filled(resnet(channels=1))),
    "gloria": ("gloria", {"unseen": HEADS}, gloria),
    "gloria, prefix gone": ("gloria", {"unseen": HEADS}, lambda: gloria("")),
    "convirt numbered": (
        "convirt", {},
        lambda: filled(resnet(stem=("0", "1"), stages=("4", "5")), "visual.model."),
    ),
    "convirt named": ("convirt", {}, lambda: filled(resnet(), "visual.model.")),
    "convirt text": (
        "convirt", {"unseen": HEADS, "part": "text"}, lambda: filled(bert(), "linguistic.encoder."),
    ),
    "torchvision": (
        "torchvision", {},
        lambda: {**filled(resnet()), **filled(linear("fc", 10, 8))},
    ),
    "timm in DataParallel": (
        "timm", {}, lambda: filled(resnet(depths=(2, 1)), "module."),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_what_comes_in_goes_out_bit_for_bit(name):
    source, options, create = CHECKPOINTS[name]
    tensors = create()
    imported = from_tensors(source, tensors, **options)
    same(release_state_dict(imported.weights), tensors)
    total, taken, kept = counts(imported)
    assert total == len(tensors)
    unread = ("num_batches_tracked", "position_ids", "fc.weight", "fc.bias")
    assert kept == sum(name.endswith(unread) for name in tensors)
    assert taken == total - kept


def test_arrays_lie_where_the_modules_look_for_them():
    tensors = gloria()
    arrays = from_tensors("gloria", tensors, unseen=HEADS).weights.arrays
    prefix = "gloria.img_encoder.model."
    np.testing.assert_array_equal(
        arrays["image_encoder/resnet/stages/stage2/block0/shortcut_conv/kernel"],
        tensors[f"{prefix}layer2.0.downsample.0.weight"].transpose(2, 3, 1, 0),
    )
    np.testing.assert_array_equal(
        arrays["text_encoder/layers/feed_forward/inner/kernel"][1],
        tensors["gloria.text_encoder.model.encoder.layer.1.intermediate.dense.weight"].T,
    )


def test_sizes_are_read_from_the_shapes():
    weights = from_tensors("gloria", gloria(), unseen=HEADS).weights
    assert (weights.part, weights.objective) == ("model", "gloria")
    assert weights.model["fidelity"] == "release"
    resnet_section = weights.model["image"]["resnet"]
    assert resnet_section["depths"] == (1, 2)
    assert resnet_section["width"] == WIDTH
    assert resnet_section["block"] == "basic"
    text = weights.model["text"]
    assert (text["layers"], text["hidden_size"], text["heads"]) == (2, HIDDEN, 2)
    assert (text["intermediate_size"], text["max_positions"]) == (INNER, PLACES)
    assert weights.data["image"]["mean"] == (0.5, 0.5, 0.5)
    assert weights.data["max_tokens"] == PLACES
    pooled = CHECKPOINTS["prior_resnet50.pt, flat"][2]()
    image = from_tensors("prior", pooled).weights
    assert image.model["pool"] == "attention"
    assert image.data["image"] == {"size": 16, "channels": 1, "mean": (0.4755,), "std": (0.3011,)}


def test_the_whole_prior_gives_back_the_config_and_the_file_it_was_made_with():
    config, tensors = tiny_config(fidelity="release"), prior()
    imported = from_tensors("prior", tensors, unseen=PRIOR_HEADS)
    weights = imported.weights
    same(release_state_dict(weights), tensors)
    assert counts(imported)[::2] == [len(tensors), 4]
    assert (weights.part, weights.objective) == ("model", "prior")
    model, image = weights.model, weights.data["image"]
    assert model["image"]["resnet"]["depths"] == config.image.resnet.depths
    assert (image["size"], image["channels"]) == (config.image.image_size, 1)
    assert model["embed_dim"] == config.embed_dim
    assert model["num_queries"] == config.num_queries
    assert model["bank"]["num_prototypes"] == config.bank.num_prototypes
    decoder = dataclasses.asdict(config.sentence_decoder)
    assert {**model["sentence_decoder"], "dropout": decoder["dropout"]} == decoder
    tensors["global_text_projection.bias"] = np.zeros(3, np.float32)
    with pytest.raises(
        WeightsError, match=r"global_text_projection\.bias: \(3,\), the model needs"
    ):
        from_tensors("prior", tensors, unseen=PRIOR_HEADS)


def test_heads_that_no_shape_tells_are_asked_for_and_noted():
    with pytest.raises(ConfigError, match=r"--heads.*16 features are no multiple of 64"):
        from_tensors("gloria", gloria())
    with pytest.raises(ConfigError, match=r"heads: .*\b3\b"):
        from_tensors("gloria", gloria(), unseen=Unseen(heads=3))
    with pytest.raises(ConfigError, match="--decoder_heads: The value is '2'"):
        from_tensors("gloria", gloria(), unseen=Unseen(heads=2, decoder_heads=2))


def test_a_part_leaves_the_rest_for_a_reason():
    tensors = mgca()
    image = from_tensors("mgca", tensors)
    assert image.weights.part == "image"
    total, taken, kept, left = counts(image)
    assert total == len(tensors)
    names = [name for name in tensors if name.startswith("img_encoder_q.model.")]
    assert taken + kept == len(names)
    same(release_state_dict(image.weights), {name: tensors[name] for name in names})
    assert left == total - len(names)
    table = render(image.rows)
    assert "left: the text tower: --part=text" in table
    assert "left: MGCA's projections" in table

    text = from_tensors("mgca", tensors, part="text", unseen=HEADS)
    names = [name for name in tensors if name.startswith("text_encoder_q.model.")]
    same(release_state_dict(text.weights), {name: tensors[name] for name in names})
    assert not any(path.startswith("pooler") for path in text.weights.arrays)
    assert any("no pooler" in note for note in text.weights.origin["notes"])


def test_each_of_prior_gloria_and_convirt_gives_its_towers_alone():
    tensors = gloria()
    text = from_tensors("gloria", tensors, part="text", unseen=HEADS)
    assert "word_embedding" in text.weights.arrays
    image = from_tensors("gloria", tensors, part="image")
    assert "resnet/stem_conv/kernel" in image.weights.arrays
    with pytest.raises(ConfigError, match=r"--part: .*'model'.* one of image, text"):
        from_tensors("mgca", mgca(), part="model")
    with pytest.raises(ConfigError, match="--source: The value is 'clip'"):
        from_tensors("clip", tensors)


@pytest.mark.parametrize("source", [name for name in SOURCES if name != "gloria"])
def test_another_sources_file_is_refused_by_its_names(source):
    with pytest.raises(WeightsError, match=r"names such as gloria\.img_encoder") as caught:
        from_tensors(source, gloria())
    assert source in str(caught.value)


def test_everything_wrong_is_listed_at_once():
    tensors = gloria()
    del tensors["gloria.text_encoder.model.encoder.layer.1.output.dense.bias"]
    tensors["gloria.img_encoder.model.layer2.1.bn2.weight"] = np.zeros(9, np.float32)
    tensors["gloria.img_encoder.model.bn1.num_batches_tracked"] = np.zeros(2, np.int64)
    tensors["gloria.img_encoder.model.layer3.0.conv1.weight"] = np.zeros(3, np.float32)
    tensors["gloria.img_encoder.model.bn9.num_batches_tracked"] = np.array(1)
    tensors["gloria.img_encoder.global_embedder.bias"] = np.zeros(HIDDEN, np.float64)
    with pytest.raises(WeightsError) as caught:
        from_tensors("gloria", tensors, unseen=HEADS)
    found = caught.value.problems
    assert found["missing"] == ["gloria.text_encoder.model.encoder.layer.1.output.dense.bias"]
    assert sorted(found["extra"]) == [
        "gloria.img_encoder.model.bn9.num_batches_tracked",
        "gloria.img_encoder.model.layer3.0.conv1.weight",
    ]
    assert [line.split(":")[0] for line in found["misshaped"]] == [
        "gloria.img_encoder.model.layer2.1.bn2.weight",
        "gloria.img_encoder.model.bn1.num_batches_tracked",
    ]
    assert found["mistyped"][0].startswith("gloria.img_encoder.global_embedder.bias: float64")


@pytest.mark.parametrize("name", ["conv1.weight", "bn1.bias", "layer1.0.conv1.weight"])
@pytest.mark.parametrize("axis", [0, -1])
def test_a_misshaped_tensor_is_not_believed(name, axis):
    tensors = filled(resnet())
    shape = list(tensors[name].shape)
    shape[axis] += 1
    tensors[name] = np.zeros(shape, np.float32)
    with pytest.raises(WeightsError) as caught:
        from_tensors("torchvision", tensors)
    assert list(caught.value.problems) == ["misshaped"]
    assert len(caught.value.problems["misshaped"]) == 1


@pytest.mark.parametrize("name", list(filled(resnet()))[::4])
def test_a_missing_tensor_is_named(name):
    tensors = filled(resnet())
    del tensors[name]
    if name.endswith("num_batches_tracked"):
        same(release_state_dict(from_tensors("torchvision", tensors).weights), tensors)
        return
    with pytest.raises(WeightsError) as caught:
        from_tensors("torchvision", tensors)
    assert caught.value.problems == {"missing": [name]}


@pytest.mark.parametrize(
    ("source", "prefix", "head"),
    [
        ("torchvision", "", "fc"),
        ("gloria", "gloria.img_encoder.model.", "gloria.img_encoder.global_embedder"),
        ("prior", "image_encoder.encoder.", "local_image_projection"),
    ],
)
def test_a_last_stage_that_is_missing_is_named_where_a_classifier_tells_of_it(source, prefix, head):
    stages = ("layer1", "layer2", "layer3")
    whole = resnet(depths=(1, 1, 1), stages=stages)
    tensors = {**filled(whole, prefix), **filled(linear(head, 10, 16))}
    from_tensors(source, tensors, part="image")
    for name in [name for name in tensors if ".layer3." in f".{name}"]:
        del tensors[name]
    stages = rf"the 8 features of .*layer2, the last stage in the file: {prefix}layer3, .*missing"
    with pytest.raises(WeightsError, match=rf"{head}\.weight: .*16 features.*{stages}"):
        from_tensors(source, tensors, part="image")
    # Without a classifier a shorter ResNet is a ResNet.
    del tensors[f"{head}.weight"], tensors[f"{head}.bias"]
    assert from_tensors(source, tensors, part="image").weights.model["resnet"]["depths"] == (1, 1)


def test_half_precision_becomes_float32_and_goes_back(tmp_path):
    tensors = filled(resnet())
    for name in list(tensors)[::3]:
        tensors[name] = tensors[name].astype(np.float16)
    tensors["conv1.weight"] = tensors["conv1.weight"].astype(ml_dtypes.bfloat16)
    weights = from_tensors("torchvision", tensors).weights
    assert {str(array.dtype) for array in weights.arrays.values()} == {"float32"}
    save_weights(tmp_path / "weights", weights)
    same(release_state_dict(load_weights(tmp_path / "weights")), tensors)


VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdef"]
CONFIG = {
    "model_type": "bert", "hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": INNER, "max_position_embeddings": PLACES, "type_vocab_size": 2,
    "vocab_size": WORDS, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.2,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A Hugging Face directory, without weights."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    return tmp_path


OLD = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}


@pytest.mark.parametrize("prefix", ["", "bert."])
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("pooler", [False, True])
def test_bert_of_any_age(folder, prefix, old, pooler):
    tensors = filled(bert(pooler=pooler), prefix)
    if prefix:
        tensors["cls.predictions.bias"] = np.zeros(WORDS, np.float32)
    if old:
        for ours, theirs in OLD.items():
            tensors = {name.replace(ours, theirs): array for name, array in tensors.items()}
    imported = from_tensors("hf_bert", tensors, directory=read_bert_directory(folder))
    weights = imported.weights
    same(release_state_dict(weights), tensors)
    assert weights.model["heads"] == 4
    assert weights.model["vocab_size"] == WORDS
    assert weights.model["dropout"] == 0.2
    assert weights.data["tokenizer"] == {"kind": "wordpiece", "lower_case": False}
    assert imported.tokenizer == folder / "vocab.txt"
    assert ("pooler/kernel" in weights.arrays) == pooler


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_act", "gelu_new"),
        ("layer_norm_eps", 1e-5),
        ("position_embedding_type", "relative_key"),
        ("model_type", "roberta"),
        ("is_decoder", True),
        ("num_attention_heads", "four"),
    ],
)
def test_another_kind_of_bert_is_refused_by_field(folder, field, value):
    (folder / "config.json").write_text(json.dumps({**CONFIG, field: value}))
    with pytest.raises(WeightsError, match=rf"config\.json: {field}: The value is {value!r}"):
        read_bert_directory(folder)


def test_a_directory_that_lacks_something_is_refused(folder):
    with pytest.raises(WeightsError, match="This is no directory"):
        read_bert_directory(folder / "vocab.txt")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY[:-1]) + "\n")
    with pytest.raises(WeightsError, match=r"vocab\.txt: .* 10 entries, .* 11 rows"):
        from_tensors("hf_bert", filled(bert()), directory=read_bert_directory(folder))
    (folder / "vocab.txt").unlink()
    with pytest.raises(WeightsError, match="has no tokenizer"):
        read_bert_directory(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(WeightsError, match="a JSON object"):
        read_bert_directory(folder)


def test_config_json_is_compared_with_the_shapes(folder):
    (folder / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": 3}))
    with pytest.raises(WeightsError, match=r"\(missing: encoder\.layer\.2\."):
        from_tensors("hf_bert", filled(bert()), directory=read_bert_directory(folder))
    with pytest.raises(ConfigError, match="--heads: The value is '2'"):
        from_tensors("hf_bert", filled(bert()), directory=read_bert_directory(folder), unseen=HEADS)


@pytest.mark.parametrize(
    ("said", "lowercase", "expected"),
    [(None, None, True), (None, False, True), (True, False, True), (False, True, False)],
)
def test_tokenizer_config_says_whether_text_is_lower_cased(folder, said, lowercase, expected):
    told = {} if said is None else {"do_lower_case": said}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    if lowercase is not None:
        vocabulary = {word: index for index, word in enumerate(VOCABULARY)}
        found = WordPiece(vocabulary=vocabulary, rules=bert_rules(lower_case=lowercase))
        (folder / "tokenizer.json").write_text(json.dumps(found.document()))
    assert read_bert_directory(folder).lower_case == expected


def test_a_file_is_imported_with_what_is_known_of_it(folder):
    from safetensors.numpy import save_file

    tensors = filled(bert())
    save_file(tensors, folder / "model.safetensors")
    weights = import_weights("hf_bert", folder)
    same(release_state_dict(weights), tensors)
    assert weights.origin["file"] == "model.safetensors"
    assert weights.origin["format"] == "safetensors"
    assert len(weights.origin["sha256"]) == 64
    del tensors["pooler.dense.bias"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=r"model\.safetensors: .*\(missing: pooler"):
        import_weights("hf_bert", folder)


def test_weights_of_another_origin_have_no_release_names():
    weights = from_tensors("torchvision", filled(resnet())).weights
    with pytest.raises(WeightsError, match=r"weights\.origin"):
        release_state_dict(dataclasses.replace(weights, origin={"run": "x"}))


def test_patterns_of_the_tables_are_regular_expressions_and_reasons_are_given():
    for source in SOURCES.values():
        assert source.licence
        for recipe in source.recipes.values():
            assert set(recipe.reads) <= {
                *(field.name for field in dataclasses.fields(Unseen)), "tokenizer"
            }  # fmt: skip
            for rule in recipe.unused:
                re.compile(rule.pattern)
                assert rule.reason
