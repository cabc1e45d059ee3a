//! How many bytes a model takes, as told to the agent.
//!
//! Counted is what is held: the constants of the optimised graph (weights in the packed layout that the kernels read, each
//! once however many nodes share it), a fixed price for each node of the graph and its place in the plan, and the tensors
//! that one inference holds at its widest point. Variable sizes count as 1, so calls with large batches take more while
//! they run; so do several calls at once. The allocator's own overhead is not counted.

use std::{collections::HashSet, sync::Arc};

use tract_onnx::{
    prelude::{InferenceModel, TDim, Tensor, TypedModel, TypedSimplePlan},
    tract_core::ops::{konst::Const, logic::IfThenElse, scan::OptScan},
};

/// Bytes of one node of a graph: the node, its names, facts and edges, and its place in the plan.
const NODE: u64 = 2048;

/// Bytes of a model without nodes: the entries of the server and the tables of the plan.
const MODEL: u64 = 16 << 10;

/// Bytes of an optimised model.
pub(super) fn of_plan(plan: &TypedSimplePlan) -> u64 {
    let model = plan.model();
    let mut seen = HashSet::new();
    held(model, &mut seen).saturating_add(scratch(plan, model)).saturating_add(MODEL)
}

/// Bytes of a parsed model, which plans are made of when shapes come.
pub(super) fn of_source(model: &InferenceModel) -> u64 {
    let constants = model.nodes.iter().filter_map(|node| node.op_as::<Const>());
    constants.map(bytes).sum::<u64>() + NODE * model.nodes.len() as u64
}

/// Bytes of a model by those of its files, before it is loaded. Files are mostly weights; packing them for the kernels
/// pads them, and small models are mostly graph.
pub(super) fn predicted(files: u64) -> u64 {
    files.saturating_add(files / 4).saturating_add(256 << 10)
}

/// Constants and nodes of a graph and of those within it; `seen` has the constants that are counted already.
fn held(model: &TypedModel, seen: &mut HashSet<*const Tensor>) -> u64 {
    let mut total = 0_u64;
    for node in &model.nodes {
        let own = match node.op_as::<Const>() {
            Some(constant) if seen.insert(Arc::as_ptr(constant.val())) => bytes(constant),
            _ => 0,
        };
        let inner = if let Some(scan) = node.op_as::<OptScan>() {
            held(scan.plan.model(), seen)
        } else if let Some(branches) = node.op_as::<IfThenElse>() {
            held(&branches.then_body, seen) + held(&branches.else_body, seen)
        } else {
            0
        };
        total = total.saturating_add(NODE).saturating_add(own).saturating_add(inner);
    }
    total
}

/// Bytes of a constant. Packed weights are not plain tensors: their fact knows.
fn bytes(constant: &Const) -> u64 {
    let tensor = constant.val();
    if let Some(fact) = constant.exotic_fact() {
        return concrete(&fact.mem_size());
    }
    let texts = tensor.to_plain_array_view::<String>().map(|texts| texts.iter().map(|text| text.len() as u64).sum());
    (tensor.len() * tensor.datum_type().size_of()) as u64 + texts.unwrap_or(0)
}

/// Bytes of the tensors that one inference holds at its widest point.
fn scratch(plan: &TypedSimplePlan, model: &TypedModel) -> u64 {
    let steps = model.eval_tmp_memory_usage(plan.order_without_consts(), |node| !node.op_is::<Const>());
    steps.map_or(0, |steps| steps.iter().map(|(_, bytes)| concrete(bytes)).max().unwrap_or(0))
}

/// A number of bytes in which every variable size is 1.
fn concrete(bytes: &TDim) -> u64 {
    let symbols = bytes.symbols().into_iter().map(|symbol| (symbol, TDim::from(1))).collect();
    let bytes = bytes.substitute_all(&symbols).ok().and_then(|bytes| bytes.as_i64());
    bytes.map_or(0, |bytes| u64::try_from(bytes).unwrap_or(0))
}
