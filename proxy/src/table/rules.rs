//! Which methods carry an id in their messages.

use std::{collections::HashMap, sync::Arc};

use modelring_proto::v1;

use crate::engine::policy::FieldPath;

/// Rules by method, `pkg.Service/Method`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    by_method: HashMap<Box<str>, Rule>,
    /// Whether methods without a rule may be called (routed by header).
    pub allow_other: bool,
}

/// Where a method carries the id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Field numbers from the message down to the id; empty = nowhere.
    pub path: FieldPath,
    /// Whether the id names a vmodel.
    pub vmodel: bool,
}

// === impl Rules ===

impl Default for Rules {
    /// What ModelMesh Serving installs, and the other methods of KServe v2 and Triton that name a model; they hold until
    /// control sends others.
    fn default() -> Self {
        let rule = |method: &str, path: &[u32]| (method.into(), Rule { path: Arc::from(path), vmodel: true });
        Self {
            by_method: HashMap::from([
                rule("inference.GRPCInferenceService/ModelInfer", &[1]),
                rule("inference.GRPCInferenceService/ModelMetadata", &[1]),
                rule("inference.GRPCInferenceService/ModelStreamInfer", &[1]),
                rule("inference.GRPCInferenceService/ModelConfig", &[1]),
                rule("inference.GRPCInferenceService/ModelStatistics", &[1]),
                rule("tensorflow.serving.PredictionService/Predict", &[1, 1]),
                rule("org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions", &[1]),
            ]),
            allow_other: true,
        }
    }
}

impl Rules {
    /// The rule of a method.
    #[must_use]
    pub fn get(&self, method: &str) -> Option<&Rule> {
        self.by_method.get(method)
    }

    /// Rules as control sent them; `allow_other` not told = the default.
    #[must_use]
    pub fn from_proto(rpcs: &[v1::RpcRule], allow_other: Option<bool>) -> Self {
        let Some(allow_other) = allow_other else { return Self::default() };
        let rule = |rpc: &v1::RpcRule| {
            let method = rpc.method.trim_start_matches('/').into();
            (method, Rule { path: Arc::from(&*rpc.id_path), vmodel: rpc.vmodel })
        };
        Self { by_method: rpcs.iter().map(rule).collect(), allow_other }
    }

    /// As control would send them, by name.
    #[must_use]
    pub fn to_proto(&self) -> Vec<v1::RpcRule> {
        let rules = self.by_method.iter().map(|(method, rule)| v1::RpcRule {
            method: method.to_string(),
            id_path: rule.path.to_vec(),
            vmodel: rule.vmodel,
        });
        let mut rpcs: Vec<_> = rules.collect();
        rpcs.sort_by(|a, b| a.method.cmp(&b.method));
        rpcs
    }
}
