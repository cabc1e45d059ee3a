//! Tensors as they travel, and what a model says of the tensors that it takes and gives.
//!
//! One form for all data: the raw bytes of KServe v2 (little-endian, row-major, no padding; BOOL one byte; BYTES each
//! element behind its length in 4 bytes). Typed contents are turned into it on the way in, and made from it on the way
//! out, so a [`Servable`](crate::Servable) meets one form only.

use std::collections::HashMap;

use bytes::Bytes;
use modelring_proto::inference::model_metadata_response::TensorMetadata;

use crate::datatype::DataType;

/// A tensor. What reaches a model fits: `data` has exactly the elements that `shape` says.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Type of its elements.
    pub datatype: DataType,
    /// Its sizes, outermost first; empty = a scalar.
    pub shape: Vec<usize>,
    /// Its elements in raw form.
    pub data: Bytes,
}

/// One size of a shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// This size.
    Fixed(usize),
    /// Any size, but the same for all inputs of a call that use the name.
    Named(String),
    /// Any size.
    Any,
}

/// What a model says of one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// Type of its elements.
    pub datatype: DataType,
    /// Its sizes; `None` = any number of them.
    pub shape: Option<Vec<Dim>>,
}

/// What a model takes and gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signature {
    /// Its inputs, all of them needed in each call.
    pub inputs: Vec<TensorSpec>,
    /// Its outputs.
    pub outputs: Vec<TensorSpec>,
}

// === impl TensorSpec ===

impl TensorSpec {
    /// The form of the protocol: a variable size is -1, and so is a shape of any rank, for which it has no word.
    pub fn metadata(&self) -> TensorMetadata {
        let size = |dim: &Dim| match dim {
            Dim::Fixed(size) => i64::try_from(*size).unwrap_or(i64::MAX),
            Dim::Named(_) | Dim::Any => -1,
        };
        TensorMetadata {
            name: self.name.clone(),
            datatype: self.datatype.name().to_owned(),
            shape: self.shape.as_ref().map_or_else(|| vec![-1], |dims| dims.iter().map(size).collect()),
        }
    }
}

// === impl Signature ===

impl Signature {
    /// The sizes that `inputs`, which fit, give to names.
    pub fn sizes(&self, inputs: &[Tensor]) -> HashMap<&str, usize> {
        let mut sizes = HashMap::new();
        for (spec, tensor) in self.inputs.iter().zip(inputs) {
            for (dim, size) in spec.shape.iter().flatten().zip(&tensor.shape) {
                if let Dim::Named(name) = dim {
                    sizes.insert(name.as_str(), *size);
                }
            }
        }
        sizes
    }
}
