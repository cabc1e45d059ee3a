//! What is done with a method before anybody looks at names.

/// Who answers a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answerer {
    /// A model server.
    Server,
    /// The proxy itself.
    Proxy,
    /// The proxy itself, unless a header names a model: then that model's server.
    ProxyUnlessNamed,
    /// Nobody: it manages a server, which is the agent's business.
    Nobody,
}

/// Who answers `pkg.Service/Method`.
#[must_use]
pub(super) fn answerer(method: &str) -> Answerer {
    let (service, name) = method.split_once('/').unwrap_or((method, ""));
    match service {
        "mmesh.ModelRuntime"
        | "com.ibm.watson.tas.internal.proto.ModelServer"
        | "org.pytorch.serve.grpc.management.ManagementAPIsService" => Answerer::Nobody,
        "tensorflow.serving.ModelService" if name == "HandleReloadConfigRequest" => Answerer::Nobody,
        "grpc.health.v1.Health"
        | "grpc.reflection.v1.ServerReflection"
        | "grpc.reflection.v1alpha.ServerReflection" => Answerer::ProxyUnlessNamed,
        "inference.GRPCInferenceService" => match name {
            "ModelReady" => Answerer::Proxy,
            "ServerLive" | "ServerReady" | "ServerMetadata" => Answerer::ProxyUnlessNamed,
            "TraceSetting" | "LogSettings" => Answerer::Nobody,
            _ if ["Repository", "SystemSharedMemory", "CudaSharedMemory"].iter().any(|of| name.starts_with(of)) => {
                Answerer::Nobody
            }
            _ => Answerer::Server,
        },
        _ => Answerer::Server,
    }
}

/// Whether a method is unary; `None` where it is not known.
#[must_use]
pub(super) fn unary(method: &str) -> Option<bool> {
    Some(match method.split_once('/')? {
        ("inference.GRPCInferenceService", name) => name != "ModelStreamInfer",
        ("tensorflow.serving.PredictionService", name) => name != "PredictStreamed",
        ("org.pytorch.serve.grpc.inference.InferenceAPIsService", name) => matches!(name, "Ping" | "Predictions"),
        _ => return None,
    })
}

/// Whether a method is known to be unary.
#[must_use]
pub(super) fn is_unary(method: &str) -> bool {
    unary(method) == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_that_manage_a_server_are_not_offered() {
        for method in [
            "mmesh.ModelRuntime/loadModel",
            "com.ibm.watson.tas.internal.proto.ModelServer/loadModel",
            "org.pytorch.serve.grpc.management.ManagementAPIsService/RegisterModel",
            "tensorflow.serving.ModelService/HandleReloadConfigRequest",
            "inference.GRPCInferenceService/RepositoryModelLoad",
            "inference.GRPCInferenceService/RepositoryIndex",
            "inference.GRPCInferenceService/SystemSharedMemoryRegister",
            "inference.GRPCInferenceService/CudaSharedMemoryStatus",
            "inference.GRPCInferenceService/TraceSetting",
            "inference.GRPCInferenceService/LogSettings",
        ] {
            assert_eq!(answerer(method), Answerer::Nobody, "{method}");
        }
    }

    #[test]
    fn the_proxy_answers_for_itself_and_servers_for_the_rest() {
        assert_eq!(answerer("inference.GRPCInferenceService/ServerLive"), Answerer::ProxyUnlessNamed);
        assert_eq!(answerer("inference.GRPCInferenceService/ModelReady"), Answerer::Proxy);
        assert_eq!(answerer("grpc.health.v1.Health/Check"), Answerer::ProxyUnlessNamed);
        for method in ["ModelInfer", "ModelStreamInfer", "ModelMetadata", "ModelConfig", "ModelStatistics"] {
            assert_eq!(answerer(&format!("inference.GRPCInferenceService/{method}")), Answerer::Server);
        }
        assert_eq!(answerer("tensorflow.serving.ModelService/GetModelStatus"), Answerer::Server);
        assert_eq!(answerer("mmesh.ModelMesh/whatever"), Answerer::Server);
        assert_eq!(answerer(""), Answerer::Server);
    }

    #[test]
    fn a_stream_is_not_taken_for_a_unary_call() {
        assert!(is_unary("inference.GRPCInferenceService/ModelInfer"));
        assert!(!is_unary("inference.GRPCInferenceService/ModelStreamInfer"));
        assert!(!is_unary("org.pytorch.serve.grpc.inference.InferenceAPIsService/StreamPredictions"));
        assert!(!is_unary("some.Other/Method"));
        assert_eq!(unary("some.Other/Method"), None);
    }
}
