"""Calls models of rows of numbers by tritonclient over HTTP, with binary tensors and with JSON.

usage: tabular_triton_http.py ADDRESS REQUESTS_FILE NAME=ROWS/ANSWERS...
"""

import tritonclient.http as triton
from tabular import arguments

address, models = arguments()
client = triton.InferenceServerClient(address)
for model in models:
    for binary in (False, True):
        tensor = triton.InferInput("predict", list(model.rows.shape), "FP32")
        tensor.set_data_from_numpy(model.rows, binary_data=binary)
        asked = triton.InferRequestedOutput("predict", binary_data=binary)
        answer = client.infer(model.name, [tensor], request_id="42", outputs=[asked])
        model.hold_against(answer.as_numpy("predict"), f"tritonclient over HTTP, binary {binary}")
        assert answer.get_response()["model_name"] == model.name, f"{answer.get_response()}"
        assert answer.get_response()["id"] == "42", "the id is not echoed"
    assert client.is_model_ready(model.name), "the model is not ready"
print("ok")
