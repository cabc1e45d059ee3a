"""Calls a model by tritonclient over gRPC: raw tensors, metadata, health, a stream; holds the scores against onnxruntime.

usage: triton_grpc.py ADDRESS MODEL MODEL_FILE REQUEST_FILE
"""

import queue
import sys

import tritonclient.grpc as triton
from reference import hold_against, image, scores

address, model, model_file, request_file = sys.argv[1:]
expected = scores(model_file, request_file)
name, data = image(request_file)

client = triton.InferenceServerClient(address)
assert client.is_server_live(), "the server is not live"
assert client.is_server_ready(), "the server is not ready"
assert client.is_model_ready(model), "the model is not ready"

metadata = client.get_model_metadata(model)
assert metadata.name == model, f"metadata names {metadata.name!r}"
assert metadata.inputs[0].name == name, f"metadata has input {metadata.inputs[0].name!r}"

tensor = triton.InferInput(name, list(data.shape), "FP32")
tensor.set_data_from_numpy(data)
output = metadata.outputs[0].name
answer = client.infer(model, [tensor], request_id="42", outputs=[triton.InferRequestedOutput(output)])
hold_against(expected, answer.as_numpy(output), "infer")
assert answer.get_response().model_name == model, f"the answer names {answer.get_response().model_name!r}"
assert answer.get_response().id == "42", "the id is not echoed"

compressed = client.infer(model, [tensor], compression_algorithm="gzip")
hold_against(expected, compressed.as_numpy(output), "infer with gzip")

answers = queue.Queue()
client.start_stream(callback=lambda result, error: answers.put((result, error)))
for number in range(20):
    client.async_stream_infer(model, [tensor], request_id=str(number))
seen = []
for _ in range(20):
    result, error = answers.get(timeout=30)
    assert error is None, f"stream: {error}"
    hold_against(expected, result.as_numpy(output), "stream")
    assert result.get_response().model_name == model, f"the stream names {result.get_response().model_name!r}"
    seen.append(result.get_response().id)
client.stop_stream()
assert seen == [str(number) for number in range(20)], f"the stream answered {seen}"

try:
    client.infer("no-such-model", [tensor])
    sys.exit("an unknown model was answered")
except triton.InferenceServerException as error:
    assert "NOT_FOUND" in str(error.status()), f"an unknown model gives {error}"
print("ok")
