"""Calls a model by tritonclient over HTTP: JSON and binary tensors, metadata, health; holds the scores against onnxruntime.

usage: triton_http.py ADDRESS MODEL MODEL_FILE REQUEST_FILE
"""

import sys

import tritonclient.http as triton
from reference import hold_against, image, scores

address, model, model_file, request_file = sys.argv[1:]
expected = scores(model_file, request_file)
name, data = image(request_file)

client = triton.InferenceServerClient(address)
assert client.is_server_live(), "the server is not live"
assert client.is_server_ready(), "the server is not ready"
assert client.is_model_ready(model), "the model is not ready"
assert client.get_server_metadata()["name"], "the server has no name"

metadata = client.get_model_metadata(model)
assert metadata["name"] == model, f"metadata names {metadata['name']!r}"
assert metadata["inputs"][0]["shape"] == list(data.shape), f"metadata has {metadata['inputs']}"
output = metadata["outputs"][0]["name"]

for binary_in in (False, True):
    for binary_out in (False, True):
        for compression in (None, "gzip", "deflate"):
            tensor = triton.InferInput(name, list(data.shape), "FP32")
            tensor.set_data_from_numpy(data, binary_data=binary_in)
            asked = triton.InferRequestedOutput(output, binary_data=binary_out)
            answer = client.infer(
                model,
                [tensor],
                request_id="42",
                outputs=[asked],
                request_compression_algorithm=compression,
                response_compression_algorithm=compression,
            )
            way = f"binary in {binary_in}, out {binary_out}, compression {compression}"
            hold_against(expected, answer.as_numpy(output), way)
            assert answer.get_response()["model_name"] == model, f"{way}: {answer.get_response()}"
            assert answer.get_response()["id"] == "42", f"{way}: the id is not echoed"

try:
    client.infer("no-such-model", [tensor])
    sys.exit("an unknown model was answered")
except triton.InferenceServerException as error:
    assert "404" in str(error.status()), f"an unknown model gives {error.status()}"
print("ok")
