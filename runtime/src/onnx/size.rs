//! How many bytes a model takes, as told to the agent.
//!
//! Counted is what is held: the constants of the optimised graph (weights in the packed layout that the kernels read, each
//! once however many nodes share it), a fixed price for each node of the graph and its place in the plan, and the tensors
//! that one inference holds at its widest point. Some operators hide their weights, so the weights never count for less
//! than in the file. Variable sizes count as 1, so calls with large batches take more while they run; so do several calls
//! at once. The allocator's own overhead is not counted.

use std::{collections::HashSet, sync::Arc};

use tract_onnx::{
    prelude::{InferenceModel, TDim, Tensor, TypedModel, TypedNode, TypedSimplePlan},
    tract_core::ops::{
        konst::Const,
        logic::IfThenElse,
        matmul::optimized::{MatMulOperand, OptMatMul, ProtoFusedSpec},
        scan::OptScan,
    },
};

/// Bytes of one node of a graph: the node, its names, facts and edges, and its place in the plan.
const NODE: u64 = 4096;

/// Bytes of a model without nodes: the entries of the server and the tables of the plan.
const MODEL: u64 = 16 << 10;

/// Bytes of an optimised model, whose file has `weights` bytes of them.
pub(super) fn of_plan(plan: &TypedSimplePlan, weights: u64) -> u64 {
    let model = plan.model();
    let mut held = Held::default();
    held.add(model);
    let nodes = held.nodes.saturating_mul(NODE);
    held.constants.max(weights).saturating_add(nodes).saturating_add(scratch(plan, model)).saturating_add(MODEL)
}

/// Bytes of a parsed model, which plans are made of when shapes come.
pub(super) fn of_source(model: &InferenceModel, weights: u64) -> u64 {
    weights.saturating_add(NODE.saturating_mul(model.nodes.len() as u64))
}

/// Bytes of a model by those of its files, before it is loaded. Files are mostly weights; packing them for the kernels
/// pads them, and small models are mostly graph.
pub(super) fn predicted(files: u64) -> u64 {
    files.saturating_add(files / 4).saturating_add(256 << 10)
}

/// Constants and nodes of a graph and of those within it.
#[derive(Default)]
struct Held {
    constants: u64,
    nodes: u64,
    seen: HashSet<*const Tensor>,
}

impl Held {
    fn add(&mut self, model: &TypedModel) {
        for node in &model.nodes {
            self.nodes += 1;
            if let Some(constant) = node.op_as::<Const>() {
                if self.seen.insert(Arc::as_ptr(constant.val())) {
                    self.constants = self.constants.saturating_add(bytes(constant));
                }
            } else if let Some(product) = node.op_as::<OptMatMul>() {
                self.constants = product.micro_ops.iter().map(packed).fold(self.constants, u64::saturating_add);
            } else if let Some(scan) = node.op_as::<OptScan>() {
                self.add(scan.plan.model());
            } else if let Some(branches) = node.op_as::<IfThenElse>() {
                self.add(&branches.then_body);
                self.add(&branches.else_body);
            }
        }
    }
}

/// Bytes of a constant. What is not a plain tensor is told by its fact.
fn bytes(constant: &Const) -> u64 {
    let tensor = constant.val();
    if let Some(fact) = constant.exotic_fact() {
        return concrete(&fact.mem_size());
    }
    let texts = tensor.to_plain_array_view::<String>().map(|texts| texts.iter().map(|text| text.len() as u64).sum());
    (tensor.len() * tensor.datum_type().size_of()) as u64 + texts.unwrap_or(0)
}

/// Bytes of the packed weights that a matrix product has swallowed.
fn packed(step: &ProtoFusedSpec) -> u64 {
    let ProtoFusedSpec::AddMatMul { a, b, .. } = step else { return 0 };
    let of = |operand: &MatMulOperand| match operand {
        MatMulOperand::Const(value) => concrete(&value.exotic_fact().mem_size()),
        MatMulOperand::Input(_) => 0,
    };
    of(a).saturating_add(of(b))
}

/// Bytes of the tensors that one inference holds at its widest point.
fn scratch(plan: &TypedSimplePlan, model: &TypedModel) -> u64 {
    // The unrolled input of a convolution has a size, but is never written out.
    let written = |node: &TypedNode| !node.op_is::<Const>() && node.op.name() != "LazyIm2col";
    let steps = model.eval_tmp_memory_usage(plan.order_without_consts(), written);
    steps.map_or(0, |steps| steps.iter().map(|(_, bytes)| concrete(bytes)).max().unwrap_or(0))
}

/// A number of bytes in which every variable size is 1.
fn concrete(bytes: &TDim) -> u64 {
    let symbols = bytes.symbols().into_iter().map(|symbol| (symbol, TDim::from(1))).collect();
    let bytes = bytes.substitute_all(&symbols).ok().and_then(|bytes| bytes.as_i64());
    bytes.map_or(0, |bytes| u64::try_from(bytes).unwrap_or(0))
}
