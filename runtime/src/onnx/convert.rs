//! Between the raw form and tract's tensors.

use std::collections::HashMap;

use bytes::Bytes;
use tract_onnx::{
    prelude::{DatumType, TDim, TractError, TractResult, tract_ndarray::ArrayD},
    tract_core::prelude::Tensor as TractTensor,
};

use crate::{
    contents,
    datatype::DataType,
    error::{Error, Result},
    tensor::Tensor,
};

#[cfg(target_endian = "big")]
compile_error!("tensors are copied as they are in memory, which must be little-endian");

/// The data type of tract's, with the sizes of shapes (TDIM) as INT64; `None` for what the protocol has no word for.
pub(super) fn datatype(datum: DatumType) -> Option<DataType> {
    match datum.unquantized() {
        DatumType::Bool => Some(DataType::Bool),
        DatumType::I8 => Some(DataType::Int8),
        DatumType::I16 => Some(DataType::Int16),
        DatumType::I32 => Some(DataType::Int32),
        DatumType::I64 | DatumType::TDim => Some(DataType::Int64),
        DatumType::U8 => Some(DataType::Uint8),
        DatumType::U16 => Some(DataType::Uint16),
        DatumType::U32 => Some(DataType::Uint32),
        DatumType::U64 => Some(DataType::Uint64),
        DatumType::F16 => Some(DataType::Fp16),
        DatumType::F32 => Some(DataType::Fp32),
        DatumType::F64 => Some(DataType::Fp64),
        DatumType::String => Some(DataType::Bytes),
        _ => None,
    }
}

/// A tensor for an input of type `datum`, whose data type is that of `tensor`. `name` is for the error.
pub(super) fn to_tract(name: &str, datum: DatumType, tensor: &Tensor) -> Result<TractTensor> {
    let made = match tensor.datatype {
        // Any byte but 0 is true; as a bool in memory only 0 and 1 are allowed.
        DataType::Bool => array(&tensor.shape, tensor.data.iter().map(|byte| *byte != 0).collect()),
        DataType::Bytes => {
            let texts: Option<Vec<String>> = contents::split(&tensor.data)
                .and_then(|elements| elements.into_iter().map(|e| String::from_utf8(e.into()).ok()).collect());
            let Some(texts) = texts else {
                return Err(Error::InvalidRequest(format!("input '{name}' has an element that is not UTF-8 text")));
            };
            array(&tensor.shape, texts)
        }
        _ => TractTensor::zero_dt(datum, &tensor.shape).map(|mut made| {
            made.as_bytes_mut().copy_from_slice(&tensor.data);
            made
        }),
    };
    made.map_err(|error| Error::Internal(format!("input '{name}': {error:#}")))
}

/// A tensor of an output. `sizes` are the variable sizes of the call: a shape that the model gives may name them.
pub(super) fn from_tract(tensor: &TractTensor, sizes: &HashMap<&str, usize>) -> TractResult<Tensor> {
    let datum = tensor.datum_type();
    let Some(datatype) = datatype(datum) else {
        return Err(TractError::msg(format!("an output has type {datum:?}")));
    };
    let data = match datum {
        DatumType::String => contents::join(tensor.to_plain_array_view::<String>()?.iter()),
        DatumType::TDim => {
            let dims = tensor.to_plain_array_view::<TDim>()?;
            dims.iter().map(|dim| Ok(size(dim, sizes)?.to_le_bytes())).collect::<TractResult<Vec<_>>>()?.concat().into()
        }
        _ => Bytes::copy_from_slice(tensor.as_bytes()),
    };
    Ok(Tensor { datatype, shape: tensor.shape().to_vec(), data })
}

fn size(dim: &TDim, sizes: &HashMap<&str, usize>) -> TractResult<i64> {
    let known = dim.symbols().into_iter().filter_map(|symbol| {
        let size = sizes.get(symbol.to_string().as_str())?;
        Some((symbol, TDim::from(*size)))
    });
    Ok(dim.substitute_all(&known.collect())?.to_i64()?)
}

fn array<T>(shape: &[usize], elements: Vec<T>) -> TractResult<TractTensor>
where
    TractTensor: From<ArrayD<T>>,
{
    Ok(ArrayD::from_shape_vec(shape, elements)?.into())
}
