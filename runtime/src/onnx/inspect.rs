//! What a model file says of itself: its operators, inputs and outputs.

use std::collections::BTreeSet;

use tract_onnx::{
    Onnx,
    pb::{
        GraphProto, ModelProto, TensorProto, ValueInfoProto, tensor_proto,
        tensor_shape_proto::dimension::Value as DimValue, type_proto::Value as TypeValue,
    },
    prelude::{DatumType, InferenceFact, InferenceModel, TDim, TractError, TractResult},
    tract_hir::infer::{Factoid, GenericFactoid, ShapeFactoid},
};

use super::{convert, plans::Plans};
use crate::{
    error::{Error, Result},
    tensor::{Dim, TensorSpec},
};

/// Refuses a model with operators that tract does not have, naming all of them.
pub(super) fn operators(onnx: &Onnx, proto: &ModelProto) -> Result<()> {
    let mut missing = BTreeSet::new();
    if let Some(graph) = &proto.graph {
        missing_operators(onnx, graph, &mut missing);
    }
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.into_iter().collect::<Vec<_>>().join(", ");
    Err(Error::InvalidModel(format!("the model needs operators that this server cannot run: {names}")))
}

fn missing_operators(onnx: &Onnx, graph: &GraphProto, missing: &mut BTreeSet<String>) {
    for node in &graph.node {
        if !onnx.op_register.0.contains_key(&node.op_type) {
            let domain = if node.domain.is_empty() { String::new() } else { format!("{}.", node.domain) };
            missing.insert(format!("{domain}{}", node.op_type));
        }
        for inner in node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs)) {
            missing_operators(onnx, inner, missing);
        }
    }
}

/// Bytes of all weights, those in files beside the model too.
pub(super) fn weights(proto: &ModelProto) -> u64 {
    proto.graph.as_ref().map_or(0, weights_of)
}

fn weights_of(graph: &GraphProto) -> u64 {
    let attributes = graph.node.iter().flat_map(|node| &node.attribute).map(|attribute| {
        let numbers = 4 * attribute.floats.len() + 8 * attribute.ints.len();
        let texts: usize = attribute.strings.iter().map(Vec::len).sum();
        let tensors: u64 = attribute.t.iter().chain(&attribute.tensors).map(tensor_bytes).sum();
        let graphs: u64 = attribute.g.iter().chain(&attribute.graphs).map(weights_of).sum();
        (numbers + texts) as u64 + tensors + graphs
    });
    graph.initializer.iter().map(tensor_bytes).chain(attributes).fold(0, u64::saturating_add)
}

/// By its shape, as its data may be in another file. What is nonsense here is found when it is read.
fn tensor_bytes(tensor: &TensorProto) -> u64 {
    let datum = tensor_proto::DataType::try_from(tensor.data_type).ok().and_then(|of| DatumType::try_from(of).ok());
    let sizes = tensor.dims.iter().map(|size| u64::try_from(*size).unwrap_or(0));
    sizes.fold(datum.map_or(0, |datum| datum.size_of() as u64), u64::saturating_mul)
}

/// The inputs of a parsed model. A size that it does not say gets a name of its own, so that tract can reckon with it.
pub(super) fn inputs(model: &mut InferenceModel) -> TractResult<Vec<TensorSpec>> {
    let mut specs = Vec::with_capacity(model.inputs.len());
    for place in 0..model.inputs.len() {
        let name = model.node(model.inputs[place].node).name.clone();
        let mut fact: InferenceFact = model.input_fact(place)?.clone();
        let datum = fact.datum_type.concretize();
        let datatype = supported(&name, datum)?;
        let mut shape = None;
        if !fact.shape.is_open() {
            let named = fact.shape.dims().map(|dim| match dim {
                GenericFactoid::Only(dim) => dim.clone(),
                GenericFactoid::Any => model.symbols.new_with_prefix("size").into(),
            });
            let dims: Vec<TDim> = named.collect();
            shape = Some(dims.iter().map(dim).collect());
            fact.shape = ShapeFactoid::closed(dims.into_iter().map(GenericFactoid::Only).collect());
            model.set_input_fact(place, fact)?;
        }
        specs.push(TensorSpec { name, datatype, shape });
    }
    Ok(specs)
}

/// The outputs: what tract found out about them, else what the file says.
pub(super) fn outputs(plans: &Plans, declared: &[ValueInfoProto]) -> TractResult<Vec<TensorSpec>> {
    let spec = |(place, output): (usize, &ValueInfoProto)| {
        let (datum, shape) = match plans {
            Plans::One(plan) => {
                let fact = plan.model().output_fact(place)?;
                (Some(fact.datum_type), Some(fact.shape.iter().map(dim).collect()))
            }
            Plans::ByShape { .. } => said(output),
        };
        Ok(TensorSpec { name: output.name.clone(), datatype: supported(&output.name, datum)?, shape })
    };
    declared.iter().enumerate().map(spec).collect()
}

/// The type and shape that a file declares.
fn said(output: &ValueInfoProto) -> (Option<DatumType>, Option<Vec<Dim>>) {
    let Some(TypeValue::TensorType(tensor)) = output.r#type.as_ref().and_then(|of| of.value.as_ref()) else {
        return (None, None);
    };
    let datum = tensor_proto::DataType::try_from(tensor.elem_type).ok().and_then(|of| of.try_into().ok());
    let size = |value: Option<&DimValue>| match value {
        Some(DimValue::DimValue(size)) => usize::try_from(*size).map_or(Dim::Any, Dim::Fixed),
        _ => Dim::Any,
    };
    (datum, tensor.shape.as_ref().map(|shape| shape.dim.iter().map(|dim| size(dim.value.as_ref())).collect()))
}

fn supported(name: &str, datum: Option<DatumType>) -> TractResult<crate::DataType> {
    let known = datum.and_then(convert::datatype);
    known
        .ok_or_else(|| TractError::msg(format!("tensor '{name}' has a type that KServe v2 has no word for: {datum:?}")))
}

fn dim(dim: &TDim) -> Dim {
    match dim {
        TDim::Sym(symbol) => Dim::Named(symbol.to_string()),
        _ => dim.as_i64().and_then(|size| usize::try_from(size).ok()).map_or(Dim::Any, Dim::Fixed),
    }
}
