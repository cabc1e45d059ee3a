"""Calls models of rows of numbers by tritonclient over gRPC, with raw tensors.

usage: tabular_triton_grpc.py ADDRESS REQUESTS_FILE NAME=ROWS/ANSWERS...
"""

import sys

import tritonclient.grpc as triton
from tabular import arguments

address, models = arguments()
client = triton.InferenceServerClient(address)
for model in models:
    tensor = triton.InferInput("predict", list(model.rows.shape), "FP32")
    tensor.set_data_from_numpy(model.rows)
    answer = client.infer(model.name, [tensor], request_id="42")
    model.hold_against(answer.as_numpy("predict"), "tritonclient over gRPC")
    assert answer.get_response().model_name == model.name, f"the answer names {answer.get_response().model_name!r}"
    assert answer.get_response().id == "42", "the id is not echoed"
    assert client.is_model_ready(model.name), "the model is not ready"
    assert client.get_model_metadata(model.name).name == model.name, "metadata names another model"
try:
    tensor.set_data_from_numpy(model.rows)
    client.infer("no-such-model", [tensor])
    sys.exit("an unknown model was answered")
except triton.InferenceServerException as error:
    assert "NOT_FOUND" in str(error.status()), f"an unknown model gives {error}"
print("ok")
