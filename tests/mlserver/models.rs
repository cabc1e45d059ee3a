//! The three models, what is asked of them, and what scikit-learn, XGBoost and LightGBM themselves say to that.

use std::{fs, path::PathBuf};

use harness::Folder;
use modelring_proto::inference::{
    InferTensorContents, ModelInferRequest, ModelInferResponse, model_infer_request::InferInputTensor,
};
use serde_json::Value;

/// One of the models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Svm,
    Xgboost,
    Lightgbm,
}

/// All of them.
pub(crate) const ALL: [Kind; 3] = [Kind::Svm, Kind::Xgboost, Kind::Lightgbm];

// === impl Kind ===

impl Kind {
    /// Name of its format.
    pub(crate) fn format(self) -> &'static str {
        match self {
            Self::Svm => "sklearn",
            Self::Xgboost => "xgboost",
            Self::Lightgbm => "lightgbm",
        }
    }

    /// Name of its file.
    pub(crate) fn file(self) -> &'static str {
        match self {
            Self::Svm => "mnist-svm.joblib",
            Self::Xgboost => "mushroom.json",
            Self::Lightgbm => "mushroom.bst",
        }
    }

    /// Its file.
    pub(crate) fn bytes(self) -> Vec<u8> {
        fs::read(data(self.file())).expect("the model is there")
    }

    /// Rows of numbers, and the answer to each.
    pub(crate) fn rows(self) -> (Vec<Vec<f32>>, Vec<f64>) {
        let requests = fs::read(data("requests.json")).expect("the requests are there");
        let mut requests: Value = serde_json::from_slice(&requests).expect("they are JSON");
        let (rows, answers) = match self {
            Self::Svm => ("digits", "svm"),
            Self::Xgboost => ("mushrooms", "xgboost"),
            Self::Lightgbm => ("mushrooms", "lightgbm"),
        };
        let mut take = |name: &str| requests[rows][name].take();
        let answers = serde_json::from_value(take(answers)).expect("answers are numbers");
        (serde_json::from_value(take("rows")).expect("rows are numbers"), answers)
    }

    /// A request for all rows.
    pub(crate) fn request(self, name: &str) -> ModelInferRequest {
        let (rows, _) = self.rows();
        let shape = vec![rows.len() as i64, rows[0].len() as i64];
        ModelInferRequest {
            model_name: name.to_owned(),
            inputs: vec![InferInputTensor {
                name: "predict".to_owned(),
                datatype: "FP32".to_owned(),
                shape,
                contents: Some(InferTensorContents { fp32_contents: rows.concat(), ..Default::default() }),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    /// Holds an answer against what is right.
    ///
    /// # Panics
    /// When it is another.
    #[track_caller]
    pub(crate) fn assert_right(self, answer: &ModelInferResponse) {
        let contents = answer.outputs[0].contents.as_ref().expect("a typed request is answered typed");
        let got: Vec<f64> = match answer.outputs[0].datatype.as_str() {
            "INT64" => contents.int64_contents.iter().map(|number| *number as f64).collect(),
            "FP32" => contents.fp32_contents.iter().map(|number| f64::from(*number)).collect(),
            "FP64" => contents.fp64_contents.clone(),
            other => panic!("an answer of {other}"),
        };
        self.assert_numbers(&got);
    }

    /// Holds numbers against what is right.
    ///
    /// # Panics
    /// When they are others.
    #[track_caller]
    pub(crate) fn assert_numbers(self, got: &[f64]) {
        let (_, expected) = self.rows();
        let close = |(got, expected): (&f64, &f64)| (got - expected).abs() <= 1e-6;
        assert!(
            got.len() == expected.len() && got.iter().zip(&expected).all(close),
            "{self:?} answers {got:?}, right is {expected:?}"
        );
    }
}

/// A file of the test data.
pub(crate) fn data(name: &str) -> PathBuf {
    Folder::checkout().join("tests/data/mlserver").join(name)
}
