"""Calls models of rows of numbers by the KServe SDK: over gRPC where the address is HOST:PORT, over REST where it is a URL.

usage: tabular_kserve.py ADDRESS REQUESTS_FILE NAME=ROWS/ANSWERS...
"""

import asyncio

from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from tabular import arguments


def request(model):
    """All rows at once."""
    tensor = InferInput("predict", list(model.rows.shape), "FP32")
    tensor.set_data_from_numpy(model.rows, binary_data=False)
    return InferRequest(model.name, [tensor], request_id="42")


async def over_grpc(address, models):
    client = InferenceGRPCClient(address, timeout=60)
    assert await client.is_server_live() and await client.is_server_ready(), "the server is not ready"
    for model in models:
        answer = await client.infer(request(model), timeout=60)
        model.hold_against(answer.outputs[0].as_numpy(), "the KServe SDK over gRPC")
        assert answer.model_name == model.name, f"the answer names {answer.model_name!r}"
        assert answer.id == "42", "the id is not echoed"
        assert await client.is_model_ready(model.name), "the model is not ready"
    await client.close()


async def over_rest(url, models):
    client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=60))
    assert await client.is_server_live(url) and await client.is_server_ready(url), "the server is not ready"
    for model in models:
        answer = await client.infer(url, request(model), model_name=model.name)
        model.hold_against(answer.outputs[0].as_numpy(), "the KServe SDK over REST")
        assert answer.model_name == model.name, f"the answer names {answer.model_name!r}"
        assert answer.id == "42", "the id is not echoed"
        assert await client.is_model_ready(url, model.name), "the model is not ready"
    await client.close()


address, models = arguments()
asyncio.run(over_rest(address, models) if address.startswith("http") else over_grpc(address, models))
print("ok")
