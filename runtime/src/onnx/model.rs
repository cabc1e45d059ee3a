//! A loaded ONNX model.

use std::{fs, path::Path};

use tract_onnx::{
    pb::{ModelProto, ValueInfoProto},
    prelude::{DatumType, Framework, InferenceModel, IntoTValue, TractError, TractResult},
};

use super::{
    convert, inspect, invalid,
    plans::{Plans, input_type},
};
use crate::{
    error::{Error, Result},
    servable::Servable,
    tensor::{Signature, Tensor},
};

/// An ONNX model that tract runs.
pub(super) struct OnnxModel {
    signature: Signature,
    /// Types of the inputs in tract's words.
    types: Vec<DatumType>,
    plans: Plans,
    size: u64,
}

// === impl OnnxModel ===

impl OnnxModel {
    /// Loads a file.
    ///
    /// # Errors
    /// [`Error::NoFile`] where it cannot be read, [`Error::InvalidModel`] where it is no model or has an operator that
    /// tract cannot run, with the operator's name.
    pub(super) fn load(file: &Path) -> Result<Self> {
        let bytes = fs::read(file).map_err(|error| Error::NoFile { path: file.to_owned(), why: error.to_string() })?;
        let onnx = tract_onnx::onnx();
        let proto = onnx.proto_model_for_read(&mut bytes.as_slice()).map_err(|error| no_model(file, &error))?;
        drop(bytes);
        if proto.graph.is_none() {
            return Err(no_model(file, &TractError::msg("it has no graph")));
        }
        inspect::operators(&onnx, &proto)?;
        // Weights in files of their own are looked for beside the model, and nowhere else.
        let folder = file.parent().and_then(Path::to_str);
        let parsed = onnx.parse(&proto, folder).map_err(|error| invalid("the model cannot be read", &error))?;
        if let Some(name) = parsed.unresolved_inputs.first() {
            return Err(Error::InvalidModel(format!("the model cannot be read: nothing gives '{name}'")));
        }
        Self::plan(proto, parsed.model).map_err(|error| invalid("the model cannot be run", &error))
    }

    fn plan(proto: ModelProto, mut parsed: InferenceModel) -> TractResult<Self> {
        let weights = inspect::weights(&proto);
        let outputs: Vec<ValueInfoProto> = proto.graph.map(|graph| graph.output).unwrap_or_default();
        let inputs = inspect::inputs(&mut parsed)?;
        let types = (0..inputs.len()).map(|place| input_type(&parsed, place)).collect::<TractResult<_>>()?;
        let (plans, size) = Plans::new(parsed, weights)?;
        let outputs = inspect::outputs(&plans, &outputs)?;
        Ok(Self { signature: Signature { inputs, outputs }, types, plans, size })
    }
}

impl Servable for OnnxModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn infer(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>> {
        // Sizes and types fit by now; what is left depends on the inputs.
        let cannot = |error: TractError| Error::InvalidRequest(format!("the model cannot run these inputs: {error:#}"));
        let shapes: Vec<&[usize]> = inputs.iter().map(|tensor| tensor.shape.as_slice()).collect();
        let plan = self.plans.of(&shapes).map_err(cannot)?;
        let specs = self.signature.inputs.iter().zip(&self.types);
        let values = specs
            .zip(&inputs)
            .map(|((spec, datum), tensor)| Ok(convert::to_tract(&spec.name, *datum, tensor)?.into_tvalue()))
            .collect::<Result<_>>()?;
        let sizes = self.signature.sizes(&inputs);
        let outputs = plan.run(values).map_err(cannot)?;
        outputs.iter().map(|output| convert::from_tract(output, &sizes).map_err(cannot)).collect()
    }
}

fn no_model(file: &Path, error: &TractError) -> Error {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    invalid(&format!("'{name}' is no ONNX model"), error)
}
