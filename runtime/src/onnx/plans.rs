//! How a model is run for the shapes that come.
//!
//! A model with fixed shapes has one plan, and so has one with variable sizes where tract can optimise it with symbols in
//! their place. For the others (an operator needs to know a size, an input's rank is not said) a plan is made for each
//! combination of shapes when it first comes, and the latest few are kept.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use tract_onnx::{
    prelude::{
        Datum, DatumType, InferenceFact, InferenceModel, InferenceModelExt, TDim, TractError, TractResult,
        TypedSimplePlan,
    },
    tract_hir::infer::Factoid,
};

use super::size;

/// Plans of one model that are kept for shapes that came.
const KEPT: usize = 4;

/// Sizes that stand in for the variable ones, to see whether a model can run at all before it is called.
const PROBES: [i64; 2] = [1, 64];

/// Shapes of all inputs.
type Shapes = Vec<Vec<usize>>;

/// The plans of a model.
pub(super) enum Plans {
    /// One for all shapes.
    One(Arc<TypedSimplePlan>),
    /// One for each combination of shapes, the latest at the back.
    ByShape {
        /// What plans are made of; its constants are shared by its clones.
        source: Box<InferenceModel>,
        /// The plans that are kept.
        made: Mutex<VecDeque<(Shapes, Arc<TypedSimplePlan>)>>,
    },
}

// === impl Plans ===

impl Plans {
    /// Plans of a parsed model whose unknown sizes are named already, and their bytes in memory; `weights` is the bytes
    /// of weights in its file.
    pub(super) fn new(source: InferenceModel, weights: u64) -> TractResult<(Self, u64)> {
        match plan(source.clone()) {
            Ok(plan) => {
                let bytes = size::of_plan(&plan, weights);
                Ok((Self::One(plan), bytes))
            }
            Err(error) => {
                let kept = probe(&source, weights, error)?.saturating_mul(KEPT as u64);
                let bytes = size::of_source(&source, weights).saturating_add(kept);
                Ok((Self::ByShape { source: Box::new(source), made: Mutex::default() }, bytes))
            }
        }
    }

    /// The plan for these shapes, which fit the signature.
    pub(super) fn of(&self, shapes: &[&[usize]]) -> TractResult<Arc<TypedSimplePlan>> {
        let (source, made) = match self {
            Self::One(plan) => return Ok(Arc::clone(plan)),
            Self::ByShape { source, made, .. } => (source, made),
        };
        let shapes: Shapes = shapes.iter().map(|shape| shape.to_vec()).collect();
        let kept = |made: &VecDeque<(Shapes, Arc<TypedSimplePlan>)>| made.iter().position(|(of, _)| *of == shapes);
        {
            let mut made = made.lock();
            if let Some(entry) = kept(&made).and_then(|place| made.remove(place)) {
                let plan = Arc::clone(&entry.1);
                made.push_back(entry);
                return Ok(plan);
            }
        }
        // Not under the lock: calls of shapes that are known do not wait for this.
        let new = plan(concrete(source, &shapes)?)?;
        let mut made = made.lock();
        if kept(&made).is_none() {
            made.push_back((shapes, Arc::clone(&new)));
            if made.len() > KEPT {
                made.pop_front();
            }
        }
        Ok(new)
    }
}

fn plan(model: InferenceModel) -> TractResult<Arc<TypedSimplePlan>> {
    TypedSimplePlan::new(model.into_optimized()?)
}

/// Bytes of a plan for stand-in sizes. The error is that of the try with symbols: it says what is in the way.
fn probe(source: &InferenceModel, weights: u64, error: TractError) -> TractResult<u64> {
    let mut open = false;
    for size in PROBES {
        let mut shapes = Shapes::new();
        for input in &source.inputs {
            let fact = source.outlet_fact(*input)?;
            let dims =
                fact.shape.dims().map(|dim| dim.concretize().and_then(|dim| usize::try_from(at(&dim, size)).ok()));
            match dims.collect() {
                Some(shape) if !fact.shape.is_open() => shapes.push(shape),
                // Any rank: nothing can be tried before it is called.
                _ => open = true,
            }
        }
        if open {
            return Ok(size::of_source(source, weights));
        }
        if let Ok(plan) = concrete(source, &shapes).and_then(plan) {
            return Ok(size::of_plan(&plan, weights));
        }
    }
    Err(error)
}

/// A size with all its symbols in place.
fn at(dim: &TDim, size: i64) -> i64 {
    let symbols = dim.symbols().into_iter().map(|symbol| (symbol, TDim::from(size))).collect();
    dim.substitute_all(&symbols).ok().and_then(|dim| dim.as_i64()).unwrap_or(size)
}

/// The model with these shapes.
fn concrete(source: &InferenceModel, shapes: &Shapes) -> TractResult<InferenceModel> {
    let mut model = source.clone();
    let mut sizes = HashMap::new();
    for (place, shape) in shapes.iter().enumerate() {
        let fact = model.input_fact(place)?.clone();
        for (dim, size) in fact.shape.dims().zip(shape) {
            if let Some(TDim::Sym(symbol)) = dim.concretize() {
                sizes.insert(symbol, TDim::from(*size));
            }
        }
        let datum = fact.datum_type.concretize().unwrap_or_else(f32::datum_type);
        model.set_input_fact(place, InferenceFact::dt_shape(datum, shape))?;
    }
    // Sizes of one name stand elsewhere in the model too.
    model.set_symbols(&sizes)?;
    Ok(model)
}

/// Type of an input; the protocol makes it known for every input.
pub(super) fn input_type(model: &InferenceModel, place: usize) -> TractResult<DatumType> {
    let fact = model.input_fact(place)?;
    fact.datum_type.concretize().ok_or_else(|| TractError::msg(format!("input {place} has no type")))
}
