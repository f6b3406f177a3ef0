"""conv and requantize against onnxruntime's QLinearConv, bit for bit."""

import jax
import numpy as np
import onnx
import onnxruntime
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from qevo.integer import conv, requantize


def qlinear_conv(x, w, multiplier, shift, strides, padding):
    """``x`` NHWC and ``w`` HWIO as in qevo, weight scale multiplier / 2**shift per channel."""
    (top, bottom), (left, right) = padding
    weight_scale = (multiplier / 2.0**shift).astype(np.float32)
    one, zero = np.float32(1), np.int8(0)
    constants = {
        "one": one, "zero": zero, "w": w.transpose(3, 2, 0, 1), "w_scale": weight_scale,
        "w_zero": np.zeros(len(shift), np.int8),
    }  # fmt: skip
    node = helper.make_node(
        "QLinearConv",
        ["x", "one", "zero", "w", "w_scale", "w_zero", "one", "zero"],
        ["y"],
        strides=strides,
        pads=[top, left, bottom, right],
    )
    graph = helper.make_graph(
        [node],
        "conv",
        [helper.make_tensor_value_info("x", TensorProto.INT8, x.transpose(0, 3, 1, 2).shape)],
        [helper.make_tensor_value_info("y", TensorProto.INT8, [None] * 4)],
        [numpy_helper.from_array(np.ascontiguousarray(v), k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (y,) = session.run(None, {"x": np.ascontiguousarray(x.transpose(0, 3, 1, 2))})
    return np.asarray(y).transpose(0, 2, 3, 1)


pads = st.tuples(st.integers(0, 2), st.integers(0, 2))


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 2**32 - 1),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    extra=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(pads, pads),
    channels=st.tuples(st.integers(1, 8), st.integers(1, 9)),
    levels=st.sampled_from([1, 3, 7, 63]),
)
def test_conv_and_requantize_equal_qlinear_conv(
    seed, kernel, extra, strides, padding, channels, levels
):
    rng = np.random.default_rng(seed)
    x = rng.integers(-127, 128, (3, kernel[0] + extra[0], kernel[1] + extra[1], channels[0]))
    w = rng.integers(-levels, levels + 1, (*kernel, *channels))
    x, w = x.astype(np.int8), w.astype(np.int8)
    bound = 127 * levels * w[..., 0].size
    shift = rng.integers(8, 18, channels[1]).astype(np.int32)
    # A typical sum lands within int8; the largest within both kinds of product.
    typical = 74 * levels * np.sqrt(w[..., 0].size) + 1
    room = min((2**31 - 2**16) // bound, 2**15)
    multiplier = np.clip(rng.integers(20, 80) * 2.0**shift / typical, 1, room).astype(np.int32)

    @jax.jit
    def ours(x, w):
        acc = conv(x, w, strides=strides, padding=padding, path="int8_im2col", bound=bound)
        return requantize(acc, multiplier, shift, low=-128), requantize(
            acc, multiplier, shift, low=-128, wide=True
        )

    expected = qlinear_conv(x, w, multiplier, shift, strides, padding)
    for result in ours(x, w):
        np.testing.assert_array_equal(result, expected)
