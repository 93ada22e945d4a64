"""Every emitter against jax, in onnx's own evaluator and in onnxruntime."""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from prior_jax.errors import ExportError
from prior_jax.interop.onnx import builder as onnx_builder
from prior_jax.interop.onnx.graph import export_onnx
from prior_jax.interop.onnx.primitives import EMITTERS
from prior_jax.nn.convolution import convolve_doubled

(BATCH,) = export.symbolic_shape("b")
F32, I32, BOOL = jnp.float32, jnp.int32, jnp.bool_
ROWS = np.random.default_rng(2).standard_normal((3, 4, 5)).astype(np.float32)
PLACES = np.array([[2, 0], [1, 3], [9, 1]], np.int32)  # one is outside


def unary(x):
    y = jnp.abs(x) + F32(0.5)
    parts = [
        jnp.abs(x), jnp.ceil(x), jnp.cos(x), lax.erf(x), lax.erfc(x), jnp.exp(x), jnp.floor(x),
        jnp.log(y), lax.logistic(x), -x, lax.rsqrt(y), jnp.sign(x), jnp.sin(x), jnp.sqrt(y),
        jnp.square(x), jnp.tanh(x), lax.integer_pow(x, 3), lax.integer_pow(y, -2),
        lax.stop_gradient(x), checkpoint_name(x, "x"), jnp.array(x, copy=True),
    ]  # fmt: skip
    return (jnp.stack(parts, axis=1),)


def binary(x, y):
    positive = jnp.abs(x) + F32(0.1)
    numbers = [x + y, x - y, x * y, x / positive, jnp.maximum(x, y), jnp.minimum(x, y)]
    numbers += [lax.pow(positive, y), lax.clamp(F32(-0.5), x, F32(0.3)), x + F32(2)]
    one = jnp.round(x * F32(2)), jnp.round(y * F32(2))
    one = tuple(value.astype(I32) for value in one)
    facts = [compare(*one) for compare in (lax.eq, lax.ne, lax.lt, lax.le, lax.gt, lax.ge)]
    a, b = x > F32(0), y > F32(0)
    facts += [a & b, a | b, a ^ b, ~a, lax.select(a, b, ~b)]
    facts += [lax.is_finite(jnp.where(b, x, F32(odd))) for odd in (np.inf, -np.inf, np.nan)]
    return jnp.stack(numbers), jnp.stack(facts), jnp.where(a, x, y), *one


def whole_numbers(x):
    parts = [x // I32(1), lax.div(x, jnp.full_like(x, -3)), x & I32(6), x | I32(9), x ^ I32(5), ~x]
    unsigned = x.astype(jnp.uint32)
    parts += [
        part.astype(I32)
        for part in (
            unsigned * jnp.uint32(2654435761), unsigned + jnp.uint32(2**32 - 3), ~unsigned,
            unsigned << jnp.uint32(5), unsigned >> jnp.uint32(3), -unsigned, unsigned ^ ~unsigned,
        )
    ]  # fmt: skip
    return jnp.stack(parts), x.astype(jnp.bool_), x.astype(F32)


def reductions(x):
    positive = x > F32(0)
    return (
        jnp.sum(x, axis=(1, 2)), jnp.max(x, axis=2), jnp.min(x, axis=1), jnp.prod(x, axis=2),
        jnp.any(positive, axis=2), jnp.all(positive, axis=1), jnp.argmax(x, axis=1),
        jnp.argmin(x, axis=2), jnp.cumsum(x, axis=1), lax.cumsum(x, axis=2, reverse=True),
        jnp.sum(positive, axis=2, dtype=I32), jnp.mean(x, axis=0), lax.reduce_sum(x, axes=()),
    )  # fmt: skip


def moves(x):
    count = x.shape[0]
    return (
        x.reshape(count, -1), x.reshape(count * 4, 5), jnp.swapaxes(x, 0, 2), x[:, None, 1:4:2],
        jnp.flip(x, (0, 2)), x[:, :0], lax.slice_in_dim(x, 1, 4, 2, axis=2),
        jnp.squeeze(x[:, :1], 1), jnp.concatenate([x, -x, x], axis=1),
        jnp.pad(x, ((0, 0), (1, 2), (0, 3)), constant_values=7), jnp.split(x, (1, 3), axis=1)[1],
        lax.pad(x, F32(1), ((0, 0, 0), (-1, 0, 0), (0, -2, 0))), jnp.zeros((count, 0), bool),
        jnp.broadcast_to(x[:, :, None], (count, 4, 3, 5)), jnp.full((count, 2), 3, I32),
        lax.broadcasted_iota(I32, (count, 3), 0), lax.broadcasted_iota(F32, (count, 3), 1),
        jnp.arange(count, dtype=jnp.uint32).astype(I32), jnp.broadcast_to(ROWS, (count, 3, 4, 5)),
        jnp.broadcast_to(ROWS[:1], (count, 4, 5)),
    )  # fmt: skip


def products(x, y):
    return (
        x @ jnp.asarray(ROWS[0].T), jnp.einsum("bij,bkj->bik", x, y),
        jnp.einsum("bij,bkj->bki", x, y), jnp.einsum("bij,bij->b", x, y),
        jnp.einsum("bij,cij->bc", x, y), jnp.einsum("yi,bij,jx->byx", ROWS[:, :, 0], x, ROWS[0].T),
        jnp.einsum("bij,kij->bik", x, ROWS), jnp.einsum("bij,bi->bj", x, y[:, :, 0]),
        jnp.einsum("bi,bj->bij", x[:, 0], y[:, 1]), jnp.einsum("bijh,bkjh->bjik", *heads(x, y)),
    )  # fmt: skip


def heads(*values):
    return (value.reshape(value.shape[0], 2, 2, 5) for value in values)


def convolutions(x):
    random = np.random.default_rng(4)

    def conv(stride, padding, *, form=("NHWC", "HWIO", "NHWC"), dilation=(1, 1), groups=1):
        shape = {"HWIO": (3, 3, 4 // groups, 6), "OIHW": (6, 4 // groups, 3, 3)}[form[1]]
        kernel = jnp.asarray(random.standard_normal(shape), F32)
        image = x if form[0] == "NHWC" else jnp.moveaxis(x, 3, 1)
        return lax.conv_general_dilated(
            image, kernel, (stride, stride), padding, rhs_dilation=dilation,
            dimension_numbers=form, feature_group_count=groups,
        )  # fmt: skip

    def pool(window, strides, padding, dilation=(1, 1, 1, 1)):
        return lax.reduce_window(
            x, -jnp.inf, lax.max, window, strides, padding, window_dilation=dilation
        )

    one = ((0, 0), (1, 1), (1, 1), (0, 0))
    return (
        conv(1, ((1, 1), (1, 1))), conv(2, ((1, 0), (0, 2))), conv(1, "SAME", dilation=(2, 1)),
        conv(1, "VALID", groups=2), conv(2, "SAME", form=("NCHW", "OIHW", "NHWC")),
        pool((1, 3, 3, 1), (1, 2, 2, 1), one), pool((1, 2, 3, 1), (1, 1, 2, 1), "VALID"),
        pool((1, 1, 2, 2), (1, 1, 1, 2), "VALID"),
        pool((1, 2, 2, 1), (1, 1, 1, 1), "VALID", (1, 2, 1, 1)),
    )  # fmt: skip


def indexing(x, index):
    table = jnp.asarray(ROWS[0])
    take = functools.partial(jnp.take, table, index, axis=0)
    pairs = jnp.stack([index, index + 1], axis=-1)
    numbers = lax.GatherDimensionNumbers(
        offset_dims=(2,), collapsed_slice_dims=(0, 1), start_index_map=(0, 1)
    )
    kept = lax.GatherDimensionNumbers(offset_dims=(0, 2), collapsed_slice_dims=(),
                                      start_index_map=(0,))  # fmt: skip
    return (
        take(), take(mode="clip"), jnp.take(table, index, axis=1, mode="fill", fill_value=3.0),
        jnp.asarray([5, 6, 7], I32)[index], jnp.take(jnp.asarray([4, 5], I32), index, axis=0),
        jnp.take(jnp.asarray([False, True]), index, axis=0), x[:, 2], x[:, -1:], x[:, 1, 3],
        x[:, ::2, 1::3], x[:, jnp.array([3, 0, 0])], x[:, [0, 3], [4, 1]],
        lax.gather(jnp.asarray(ROWS), pairs, numbers, (1, 1, 5), mode="clip"),
        lax.gather(jnp.asarray(ROWS), pairs, numbers, (1, 1, 5), mode="fill"),
        lax.gather(table, index[0, :, None], kept, (1, 5), mode="clip"),
        x.at[:, 1].set(F32(3)), x.at[:, :, 0].set(x[:, :, 1]), (x > F32(0)).at[:, 0].set(True),
        x.at[:, 9].set(F32(3), mode="drop"),
        lax.dynamic_slice(x, (0, index[0, 0], index[0, 1]), (x.shape[0], 2, 5)),
        lax.dynamic_slice(x, (0, I32(3), index[0, 1]), (x.shape[0], 2, 3)),
        lax.dynamic_index_in_dim(table, index[0, 0]), lax.gather(
            jnp.asarray(ROWS[0]), PLACES, lax.GatherDimensionNumbers(
                offset_dims=(), collapsed_slice_dims=(0, 1), start_index_map=(0, 1)
            ), (1, 1), mode="fill",
        )[None] + x[:, :1, 0],
    )  # fmt: skip


def programs(x):
    weights = {"w": jnp.asarray(ROWS[:, 0, :, None] * ROWS[:, 0, None, :])}

    @jax.custom_vjp
    def double(x):
        return x * 2

    double.defvjp(lambda x: (double(x), None), lambda _, g: (g * 2,))

    def body(x, layer):
        x = jax.checkpoint(lambda x: jnp.tanh(x @ layer["w"]))(x)
        return x, (x[:, 0], jnp.sum(layer["w"]))

    forward, (rows, sums) = lax.scan(body, x, weights)
    backward, (others, _) = lax.scan(body, x, weights, reverse=True)
    counted, _ = lax.scan(lambda n, row: (n + row, None), F32(0), jnp.moveaxis(x, 1, 0)[:, 0, 0])
    here = NamedSharding(Mesh(np.array(jax.devices()[:1]), ("one",)), PartitionSpec())
    x = lax.with_sharding_constraint(jax.nn.relu(double(x)), here)
    return forward, rows, sums, backward, others, counted, x


def randomness(x):
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(7), jnp.arange(x.shape[0]))
    again = jax.vmap(jax.random.fold_in)(keys, x[:, 0])
    wrapped = jax.random.wrap_key_data(jax.vmap(jax.random.key_data)(keys))
    bits = (x + I32(10)).astype(jnp.uint32)
    draw = jax.vmap(lambda key: jax.random.bits(key, (3, 5)).astype(I32))
    return (
        jax.vmap(lambda key: jax.random.gumbel(key, (3, 5)))(keys),
        jax.vmap(lambda key: jax.random.uniform(key))(keys),
        draw(again), draw(wrapped),
        lax.bitcast_convert_type(bits * jnp.uint32(2**26 + 1) ^ bits << jnp.uint32(31), F32),
    )  # fmt: skip


X = ((BATCH, 4, 5), F32)


# name -> function, shapes and dtypes of its inputs.
def chosen_by_platform(x):
    kernel = jnp.arange(9 * 5 * 2, dtype=F32).reshape(3, 3, 5, 2) / F32(90)
    return (convolve_doubled(x[:, :, None, :], kernel),)


CASES = {
    "chosen_by_platform": (chosen_by_platform, X),
    "unary": (unary, X),
    "binary": (binary, X, X),
    "whole_numbers": (whole_numbers, ((BATCH, 6), I32)),
    "reductions": (reductions, X),
    "moves": (moves, X),
    "products": (products, X, X),
    "convolutions": (convolutions, ((BATCH, 7, 9, 4), F32)),
    "indexing": (indexing, X, ((BATCH, 3), I32)),
    "programs": (programs, X),
    "randomness": (randomness, ((BATCH, 6), I32)),
}


def traced(name):
    function, *inputs = CASES[name]
    shapes = {f"input{i}": jax.ShapeDtypeStruct(*spec) for i, spec in enumerate(inputs)}
    count = len(jax.eval_shape(function, *shapes.values()))
    return function, shapes, [f"output{i}" for i in range(count)]


def arrays(shapes, rows):
    """Normal numbers; integers of -4 to 5, and so some outside what they index."""
    random = np.random.default_rng(rows)
    found = {}
    for name, spec in shapes.items():
        shape = (rows, *spec.shape[1:])
        normal = random.standard_normal(shape).astype(np.float32)
        found[name] = normal if spec.dtype == F32 else random.integers(-4, 6, shape, np.int32)
    return found


def primitives(jaxpr):
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from primitives(inner)


@pytest.mark.parity
@pytest.mark.parametrize("name", CASES)
def test_a_graph_gives_what_jax_gives_at_any_batch(name):
    import onnxruntime
    from onnx.reference import ReferenceEvaluator

    function, shapes, outputs = traced(name)
    model = export_onnx(function, shapes, outputs)
    runtime = onnxruntime.InferenceSession(model.SerializeToString())
    for rows in (1, 2, 7):
        inputs = arrays(shapes, rows)
        expected = jax.jit(function)(*inputs.values())
        runs = {"onnxruntime": runtime.run(outputs, inputs)}
        if rows == 2:
            runs["reference"] = ReferenceEvaluator(model).run(outputs, inputs)
        for place, found in runs.items():
            for index, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
                why = f"output {index} in {place} at {rows}"
                assert ours.shape == theirs.shape and ours.dtype == theirs.dtype, why
                np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-6, err_msg=why)


def test_every_emitter_has_a_case():
    met = {"threefry2x32"}  # within random bits
    for name in CASES:
        function, shapes, _ = traced(name)
        met.update(primitives(jax.make_jaxpr(function)(*shapes.values()).jaxpr))
    assert set(EMITTERS) <= met


def refused(function, *inputs, match):
    shapes = {f"input{i}": jax.ShapeDtypeStruct(*spec) for i, spec in enumerate(inputs)}
    with pytest.raises(ExportError, match=match):
        export_onnx(lambda *x: (function(*x),), shapes, ["output"])


def test_what_has_no_emitter_is_refused_by_name():
    refused(jnp.sort, X, match="operation 'sort'")
    refused(lambda x: lax.reduce_window(x, 0.0, lax.add, (1, 2, 2), (1, 1, 1), "VALID"), X,
            match="reduce_window_sum")  # fmt: skip
    refused(lambda x: x[:-1], ((BATCH, 4), F32), match="only the whole batch")
    refused(lambda x: lax.pad(x, F32(0), ((0, 0, 0), (0, 0, 1))), ((BATCH, 4), F32),
            match="padding_config")  # fmt: skip
    refused(lambda x: x.astype(jnp.float16), X, match="float16")
    refused(lambda x: lax.cummax(x, axis=1), X, match="cummax")
    refused(lambda x: jnp.take_along_axis(x, jnp.argmax(x, 1)[:, None], axis=1, mode="clip"),
            ((BATCH, 4), F32), match="batching")  # fmt: skip


def test_shapes_and_dtypes_that_are_no_inputs_are_refused_by_name():
    refused(jnp.sin, ((3, BATCH), F32), match="shape of input0")
    refused(jnp.sin, ((2 * BATCH, 4), F32), ((BATCH,), F32), match="shape of input1")
    refused(jnp.sin, ((BATCH, 4), jnp.bfloat16), match="dtype of input0")


def test_without_onnx_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    refused(jnp.sin, X, match=r"pip install -e '\.\[export\]'")


@pytest.mark.parity
def test_more_weights_than_a_file_holds_are_refused(monkeypatch):
    monkeypatch.setattr(onnx_builder, "_MOST_WEIGHTS", 1000)
    refused(lambda x: x @ jnp.ones((5, 60), F32), X, match="1200 bytes")


@pytest.mark.parity
def test_weights_are_kept_once_and_only_if_an_output_needs_them():
    weights = np.ones((5, 5), np.float32)

    def function(x):
        unused = x @ jnp.full((5, 50), 2, F32)
        del unused
        return {"second": x @ weights + x @ weights, "first": x}

    model = export_onnx(function, {"x": jax.ShapeDtypeStruct(*X)}, ["first", "second"])
    assert [output.name for output in model.graph.output] == ["first", "second"]
    assert [list(constant.dims) for constant in model.graph.initializer] == [[5, 5]]
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["b", 4, 5]
