"""Computes with onnxruntime what the tests expect: `python make_reference.py` with the packages onnxruntime and numpy."""

import json
from pathlib import Path

import numpy as np
import onnxruntime

HERE = Path(__file__).parent
QUICKSTART = HERE / "../../../config/quickstart"
DATATYPES = {"float32": "FP32", "int64": "INT64", "bool": "BOOL"}
rng = np.random.default_rng(4)


def digit(name):
    request = json.loads((QUICKSTART / "requests" / f"{name}.json").read_text())
    return np.array(request["inputs"][0]["data"], np.float32).reshape(1, 1, 28, 28)


def tensor(name, array):
    array = np.asarray(array)
    return {
        "name": name,
        "datatype": DATATYPES[array.dtype.name],
        "shape": list(array.shape),
        "data": [value.item() for value in array.reshape(-1)],
    }


def case(path, **inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    outputs = session.run(names, inputs)
    return {
        "model": str(path.relative_to(HERE) if path.is_relative_to(HERE) else path.name),
        "inputs": [tensor(name, array) for name, array in inputs.items()],
        "outputs": [tensor(name, array) for name, array in zip(names, outputs)],
    }


def floats(*shape):
    return np.round(rng.uniform(-2, 2, shape), 3).astype(np.float32)


mnist = (QUICKSTART / "models/onnx/mnist.onnx").resolve()
cases = [case(mnist, Input3=image) for image in (digit("digit-3"), digit("digit-7"), np.abs(floats(1, 1, 28, 28)) * 127)]
cases += [case(HERE / "affine.onnx", x=floats(rows, 3)) for rows in (1, 2, 7, 64)]
cases += [
    case(
        HERE / "integers.onnx",
        a=np.array([1, -2, 3, -(2**53) - 1], np.int64),
        mask=np.array([True, False, False, True]),
        flag=np.array(flag),
    )
    for flag in (True, False)
]
cases += [case(HERE / "shapes.onnx", x=floats(rows, columns), y=floats(rows, 1)) for rows, columns in ((2, 3), (4, 1))]
cases += [case(HERE / "nonzero.onnx", x=np.array(x, np.int64)) for x in ([0, 5, 0, -1], [0, 0], [1])]
cases += [case(HERE / "anyrank.onnx", x=floats(*shape)) for shape in ((4,), (2, 3), (1, 2, 2))]

lines = ",\n".join(json.dumps(case) for case in cases)
(HERE / "reference.json").write_text(f"[\n{lines}\n]\n")
