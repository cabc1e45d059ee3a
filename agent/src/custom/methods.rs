//! What proxies are told of a server's methods: request paths as the server says, response paths as KServe's protocol has
//! them.

use modelring_proto::mmesh::RuntimeStatusResponse;

use crate::server::Method;

/// Methods of KServe v2 that carry a model: name, path in the request, path in the response.
const KSERVE: [(&str, &[u32], &[u32]); 5] = [
    ("inference.GRPCInferenceService/ModelInfer", &[1], &[1]),
    ("inference.GRPCInferenceService/ModelMetadata", &[1], &[1]),
    ("inference.GRPCInferenceService/ModelReady", &[1], &[]),
    ("inference.GRPCInferenceService/ModelConfig", &[1], &[1, 1]),
    // Its response has a list of models: what is appended would be one more.
    ("inference.GRPCInferenceService/ModelStatistics", &[1], &[]),
];
/// The stream of KServe v2; its response differs between servers.
const STREAM: &str = "inference.GRPCInferenceService/ModelStreamInfer";

/// The methods of a server.
pub(super) fn of(status: &RuntimeStatusResponse, runtime: &str) -> Vec<Method> {
    let stream = stream_response(status, runtime);
    let known = KSERVE.into_iter().chain([(STREAM, &[1][..], stream)]);
    if status.method_infos.is_empty() {
        // Nothing said: all methods are offered, and those of KServe are where they are.
        return known
            .map(|(name, request, response)| Method {
                name: name.to_owned(),
                request_path: request.to_vec(),
                response_path: response.to_vec(),
            })
            .collect();
    }
    let response_of =
        |name: &str| known.clone().find(|(known, _, _)| *known == name).map_or(&[][..], |(_, _, response)| response);
    let mut methods: Vec<Method> = status
        .method_infos
        .iter()
        .map(|(name, info)| Method {
            name: name.clone(),
            request_path: info.id_injection_path.clone(),
            response_path: response_of(name).to_vec(),
        })
        .collect();
    methods.sort_by(|a, b| a.name.cmp(&b.name));
    methods
}

/// Where a message of the stream's response carries the model name. Triton wraps the response, MLServer does not; of others
/// nothing is known, and a wrong guess would corrupt their messages.
fn stream_response(status: &RuntimeStatusResponse, runtime: &str) -> &'static [u32] {
    let is = |name: &str| runtime.starts_with(name) || status.runtime_version.starts_with(name);
    if is("modelring") || is("triton") {
        &[2, 1]
    } else if is("mlserver") {
        &[1]
    } else {
        &[]
    }
}

#[cfg(test)]
mod tests {
    use modelring_proto::mmesh::runtime_status_response::MethodInfo;

    use super::*;

    fn response(methods: &[Method], name: &str) -> Vec<u32> {
        methods.iter().find(|method| method.name.ends_with(name)).unwrap().response_path.clone()
    }

    #[test]
    fn a_server_that_names_no_methods_offers_those_of_kserve() {
        let methods = of(&RuntimeStatusResponse::default(), "custom");
        assert_eq!(methods.len(), 6);
        assert!(methods.iter().all(|method| method.request_path == [1]));
        assert_eq!(response(&methods, "ModelInfer"), [1]);
        assert_eq!(response(&methods, "ModelMetadata"), [1]);
    }

    #[test]
    fn the_response_of_the_stream_is_known_by_the_kind_of_server() {
        for (runtime, path) in
            [("modelring-onnx", &[2, 1][..]), ("triton-2.x", &[2, 1]), ("mlserver-1.x", &[1]), ("custom", &[])]
        {
            assert_eq!(response(&of(&RuntimeStatusResponse::default(), runtime), "ModelStreamInfer"), path);
        }
    }

    #[test]
    fn named_methods_are_the_list_and_an_empty_path_stays_empty() {
        let info = |path: &[u32]| MethodInfo { id_injection_path: path.to_vec() };
        let method_infos = [
            ("inference.GRPCInferenceService/ModelInfer".to_owned(), info(&[1])),
            ("my.Service/Predict".to_owned(), info(&[3, 1])),
            ("my.Service/List".to_owned(), info(&[])),
        ];
        let methods = of(&RuntimeStatusResponse { method_infos: method_infos.into(), ..Default::default() }, "custom");
        let paths: Vec<_> = methods
            .iter()
            .map(|method| (method.name.as_str(), &method.request_path[..], &method.response_path[..]))
            .collect();
        assert_eq!(
            paths,
            [
                ("inference.GRPCInferenceService/ModelInfer", &[1][..], &[1][..]),
                ("my.Service/List", &[], &[]),
                ("my.Service/Predict", &[3, 1], &[]),
            ]
        );
    }
}
