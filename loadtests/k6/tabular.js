// Steady calls of models of rows of numbers, by gRPC and by REST, open loop: a call is sent when it is due, whether or not
// the ones before it were answered. Every answer is held against the right one.
//
//   k6 run -e GRPC=127.0.0.1:8033 -e REST=http://127.0.0.1:8008 -e REQUESTS=tests/data/mlserver/requests.json \
//          -e MODELS=digits-svm=digits/svm,mushroom=mushrooms/xgboost -e RATE=20 -e DURATION=5s loadtests/k6/tabular.js

import { check } from "k6";
import http from "k6/http";
import grpc from "k6/net/grpc";

const requests = JSON.parse(open(__ENV.REQUESTS));
const models = __ENV.MODELS.split(",").map((given) => {
  const [name, where] = given.split("=");
  const [rows, answers] = where.split("/");
  return { name, rows: requests[rows].rows, answers: requests[rows][answers] };
});

function scenario(exec) {
  return {
    executor: "constant-arrival-rate",
    exec,
    rate: Number(__ENV.RATE || 20),
    timeUnit: "1s",
    duration: __ENV.DURATION || "5s",
    preAllocatedVUs: 10,
    maxVUs: 100,
  };
}

export const options = {
  scenarios: { by_grpc: scenario("byGrpc"), by_rest: scenario("byRest") },
  // Nothing fails, nothing is wrong, and no call is left out.
  thresholds: { checks: ["rate==1"], dropped_iterations: ["count==0"] },
  summaryTrendStats: ["med", "p(90)", "p(99)", "max"],
};

const client = new grpc.Client();
let connected = false;

function pick() {
  return models[__ITER % models.length];
}

function tensor(model) {
  return { name: "predict", datatype: "FP32", shape: [model.rows.length, model.rows[0].length] };
}

function right(model, got) {
  return got.length === model.answers.length && model.answers.every((answer, i) => Math.abs(Number(got[i]) - answer) <= 1e-6);
}

export function byGrpc() {
  if (!connected) {
    client.connect(__ENV.GRPC, { plaintext: true, reflect: true });
    connected = true;
  }
  const model = pick();
  const input = Object.assign(tensor(model), { contents: { fp32_contents: model.rows.flat() } });
  const answer = client.invoke("inference.GRPCInferenceService/ModelInfer", { model_name: model.name, inputs: [input] });
  check(answer, {
    "gRPC: OK": (answer) => answer.status === grpc.StatusOK,
    "gRPC: right": (answer) =>
      answer.status === grpc.StatusOK && right(model, Object.values(answer.message.outputs[0].contents).find((list) => list.length > 0)),
  });
}

export function byRest() {
  const model = pick();
  const input = Object.assign(tensor(model), { data: model.rows.flat() });
  const url = `${__ENV.REST}/v2/models/${model.name}/infer`;
  const answer = http.post(url, JSON.stringify({ inputs: [input] }), { headers: { "Content-Type": "application/json" } });
  check(answer, {
    "REST: 200": (answer) => answer.status === 200,
    "REST: right": (answer) => answer.status === 200 && right(model, answer.json().outputs[0].data),
  });
}
