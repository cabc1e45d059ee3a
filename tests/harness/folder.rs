//! A folder of manifests, made for one test.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

/// A temporary folder that holds manifests and model files. Removed when dropped.
#[derive(Debug)]
pub struct Folder {
    dir: TempDir,
}

// === impl Folder ===

impl Folder {
    /// A copy of the quickstart folder.
    #[must_use]
    pub fn quickstart() -> Self {
        let folder = Self::empty();
        copy(&Self::checkout().join("config/quickstart"), folder.path());
        folder
    }

    /// A folder with the quickstart's Secret (storage key `localMinIO`, folder `models`) and nothing else.
    #[must_use]
    pub fn with_storage() -> Self {
        let folder = Self::empty();
        fs::create_dir(folder.path().join("models")).expect("a new folder can be written");
        let secret = "config/quickstart/storage-config.yaml";
        fs::copy(Self::checkout().join(secret), folder.path().join("storage-config.yaml")).expect("a copy can be made");
        folder
    }

    /// An empty folder.
    #[must_use]
    pub fn empty() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary folder can be made") }
    }

    /// Root of this repository's checkout.
    #[must_use]
    pub fn checkout() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the checkout").to_owned()
    }

    /// The MNIST model of the quickstart.
    #[must_use]
    pub fn mnist() -> PathBuf {
        Self::checkout().join("config/quickstart/models/onnx/mnist.onnx")
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file below the folder, aside and renamed as an editor does.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("a folder can be made");
        let aside = path.with_extension("tmp~");
        fs::write(&aside, content).expect("a file can be written");
        fs::rename(&aside, &path).expect("a file can be renamed");
    }

    /// Removes a file below the folder.
    pub fn remove(&self, name: &str) {
        fs::remove_file(self.path().join(name)).expect("the file is there");
    }

    /// Puts the MNIST model at `models/<path>`.
    pub fn add_mnist(&self, path: &str) {
        self.write(&format!("models/{path}"), fs::read(Self::mnist()).expect("the model is there"));
    }

    /// Makes the model of [`crate::fleet::model`] of this number, and an InferenceService of it: whatever it is given,
    /// zeros are answered by its number + 1 and the negative of that (0 has no sign to be told by).
    pub fn add_numbered(&self, number: usize) {
        let name = crate::fleet::model(number);
        self.add_affine(&format!("affine/{name}.onnx"), number as f32 + 1.0);
        self.add_isvc(&name, &format!("affine/{name}.onnx"));
    }

    /// Puts a model at `models/<path>` that answers x W + (number, -number).
    pub fn add_affine(&self, path: &str, number: f32) {
        self.write(&format!("models/{path}"), Self::affine(number));
    }

    /// Writes the Secret `storage-config` with this entry for the key that the InferenceServices here name.
    pub fn set_storage(&self, entry: &str) {
        let secret =
            "apiVersion: v1\nkind: Secret\nmetadata:\n  name: storage-config\nstringData:\n  localMinIO: |\n    ";
        self.write("storage-config.yaml", format!("{secret}{entry}\n"));
    }

    /// The bytes of a model that answers x W + (number, -number).
    #[must_use]
    pub fn affine(number: f32) -> Vec<u8> {
        let mut model = fs::read(Self::checkout().join("runtime/tests/data/affine.onnx")).expect("the model is there");
        let bias = |at: f32| [at.to_le_bytes(), (-at).to_le_bytes()].concat();
        let before = bias(0.5);
        let at = model.windows(8).position(|window| window == before).expect("the model has its bias");
        model[at..at + 8].copy_from_slice(&bias(number));
        model
    }

    /// Writes `<name>.yaml`: an InferenceService of format onnx at `path` of the storage key.
    pub fn add_isvc(&self, name: &str, path: &str) {
        self.write(&format!("{name}.yaml"), Self::isvc(name, path));
    }

    /// The manifest of an InferenceService of format onnx.
    #[must_use]
    pub fn isvc(name: &str, path: &str) -> String {
        format!(
            "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata:\n  name: {name}\n  annotations:\n    \
             serving.kserve.io/deploymentMode: ModelMesh\nspec:\n  predictor:\n    model:\n      modelFormat:\n        \
             name: onnx\n      storage:\n        key: localMinIO\n        path: {path}\n"
        )
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("the folder is there") {
        let entry = entry.expect("the folder can be read");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("the type is known").is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy can be made");
        }
    }
}
