"""Makes the small ONNX models of the tests: `python make_models.py` with the packages onnx and numpy."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, checker, helper, load, numpy_helper, save

HERE = Path(__file__).parent
OPSET = [helper.make_opsetid("", 17)]


def write(name, nodes, inputs, outputs, weights=(), opset=OPSET, check=True):
    graph = helper.make_graph(nodes, name, inputs, outputs, [numpy_helper.from_array(v, k) for k, v in weights])
    model = helper.make_model(graph, opset_imports=opset, ir_version=8, producer_name="modelring-tests")
    if check:
        checker.check_model(model)
    save(model, HERE / f"{name}.onnx")


def tensor(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def node(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs, outputs, name=f"{op.lower()}_{outputs[0]}", **attributes)


# y = x W + b over any number of rows.
write(
    "affine",
    [node("Gemm", ["x", "w", "b"], ["y"])],
    [tensor("x", TensorProto.FLOAT, ["batch", 3])],
    [tensor("y", TensorProto.FLOAT, ["batch", 2])],
    [("w", np.array([[1, 2], [3, 4], [5, 6]], np.float32)), ("b", np.array([0.5, -0.5], np.float32))],
)

# picked = where(mask, a, -a), all three int64 or bool; any = mask or flag.
write(
    "integers",
    [
        node("Neg", ["a"], ["minus"]),
        node("Where", ["mask", "a", "minus"], ["picked"]),
        node("Or", ["mask", "flag"], ["either"]),
    ],
    [tensor("a", TensorProto.INT64, [4]), tensor("mask", TensorProto.BOOL, [4]), tensor("flag", TensorProto.BOOL, [])],
    [tensor("picked", TensorProto.INT64, [4]), tensor("either", TensorProto.BOOL, [4])],
)

# One output of every type, as it came in.
KINDS = {
    "bool": TensorProto.BOOL,
    "int8": TensorProto.INT8,
    "int16": TensorProto.INT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "uint16": TensorProto.UINT16,
    "uint32": TensorProto.UINT32,
    "uint64": TensorProto.UINT64,
    "fp16": TensorProto.FLOAT16,
    "fp32": TensorProto.FLOAT,
    "fp64": TensorProto.DOUBLE,
    "bytes": TensorProto.STRING,
}


def mirror(name, kinds):
    write(
        name,
        [node("Identity", [kind], [f"{kind}_out"]) for kind in kinds],
        [tensor(kind, number, ["n"]) for kind, number in kinds.items()],
        [tensor(f"{kind}_out", number, ["n"]) for kind, number in kinds.items()],
    )


mirror("mirror", KINDS)
# The same without the type that typed contents cannot carry.
mirror("mirror_typed", {kind: number for kind, number in KINDS.items() if kind != "fp16"})

# An answer that typed contents cannot carry, to a request that they can.
write(
    "half",
    [node("Cast", ["x"], ["y"], to=TensorProto.FLOAT16)],
    [tensor("x", TensorProto.FLOAT, [2])],
    [tensor("y", TensorProto.FLOAT16, [2])],
)

# sum = x + y, dims = the shape of x: two inputs must agree on their size, and a shape is a value.
write(
    "shapes",
    [node("Add", ["x", "y"], ["sum"]), node("Shape", ["x"], ["dims"])],
    [tensor("x", TensorProto.FLOAT, ["n", None]), tensor("y", TensorProto.FLOAT, ["n", 1])],
    [tensor("sum", TensorProto.FLOAT, ["n", None]), tensor("dims", TensorProto.INT64, [2])],
)

# An output whose size depends on the values, not on the shape, of the input.
write(
    "nonzero",
    [node("NonZero", ["x"], ["where"])],
    [tensor("x", TensorProto.INT64, ["n"])],
    [tensor("where", TensorProto.INT64, [1, "found"])],
)

# The target shape is an input: its product is known only when it is called.
write(
    "reshape",
    [node("Reshape", ["x", "to"], ["y"])],
    [tensor("x", TensorProto.FLOAT, ["n"]), tensor("to", TensorProto.INT64, [2])],
    [tensor("y", TensorProto.FLOAT, ["rows", "columns"])],
)

# An input whose rank is not said.
write(
    "anyrank",
    [node("Relu", ["x"], ["y"])],
    [tensor("x", TensorProto.FLOAT, None)],
    [tensor("y", TensorProto.FLOAT, None)],
    check=False,
)

# An operator that the server lacks, once at the top and once in a branch.
then = helper.make_graph([node("Det", ["m"], ["d1"])], "then", [], [tensor("d1", TensorProto.FLOAT, [])])
other = helper.make_graph([node("Unique", ["m"], ["d2"])], "else", [], [tensor("d2", TensorProto.FLOAT, [None])])
write(
    "unsupported",
    [node("Relu", ["x"], ["m"]), node("If", ["c"], ["y"], then_branch=then, else_branch=other)],
    [tensor("x", TensorProto.FLOAT, [2, 2]), tensor("c", TensorProto.BOOL, [])],
    [tensor("y", TensorProto.FLOAT, None)],
    check=False,
)

# Mostly weights: 256 KiB of them.
write(
    "heavy",
    [node("MatMul", ["x", "w"], ["y"])],
    [tensor("x", TensorProto.FLOAT, ["batch", 256])],
    [tensor("y", TensorProto.FLOAT, ["batch", 256])],
    [("w", np.arange(256 * 256, dtype=np.float32).reshape(256, 256))],
)

# The affine model with its weights in a file beside it.
folder = HERE / "external"
folder.mkdir(exist_ok=True)
(folder / "weights.bin").unlink(missing_ok=True)
save(
    load(HERE / "affine.onnx"),
    folder / "model.onnx",
    save_as_external_data=True,
    location="weights.bin",
    size_threshold=0,
)

# A file that ends in its middle.
mnist = (HERE / "../../../config/quickstart/models/onnx/mnist.onnx").resolve().read_bytes()
(HERE / "truncated.onnx").write_bytes(mnist[: len(mnist) // 2])
