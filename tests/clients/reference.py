"""The ten scores that onnxruntime gives for a request file: the reference that every answer is held against."""

import json
import sys

import numpy
import onnxruntime


def image(request_file):
    """The first input tensor of a KServe v2 JSON request."""
    with open(request_file, encoding="utf-8") as file:
        tensor = json.load(file)["inputs"][0]
    return tensor["name"], numpy.array(tensor["data"], dtype=numpy.float32).reshape(tensor["shape"])


def scores(model_file, request_file):
    """What onnxruntime says."""
    name, data = image(request_file)
    session = onnxruntime.InferenceSession(model_file, providers=["CPUExecutionProvider"])
    return session.run(None, {name: data})[0].reshape(-1)


def hold_against(expected, got, who):
    """Ends the program with a message if the scores differ by more than rounding."""
    got = numpy.asarray(got, dtype=numpy.float32).reshape(-1)
    if got.shape != expected.shape or not numpy.allclose(got, expected, rtol=1e-4, atol=1e-2):
        sys.exit(f"{who}: got {got.tolist()}, onnxruntime says {expected.tolist()}")


if __name__ == "__main__":
    print(json.dumps(scores(sys.argv[1], sys.argv[2]).tolist()))
