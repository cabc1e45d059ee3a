//! The size that is told, against the memory that the process really takes. A binary of its own: nothing else may
//! allocate beside it.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;

use modelring_runtime::{Loader, ModelFiles, OnnxLoader};

const MODELS: u64 = 400;

/// Bytes of memory that the process has in use.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn the_size_that_is_told_is_within_a_factor_of_two_of_what_is_taken() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/quickstart/models/onnx/mnist.onnx");
    let files = ModelFiles { id: "mnist".to_owned(), model_type: String::new(), path: path.into(), key: String::new() };
    let load = || OnnxLoader.load(&files).unwrap();
    // What the process needs once, and what loading leaves behind for the next load.
    let mut held: Vec<_> = (0..20).map(|_| load()).collect();
    let before = resident();
    held.extend((0..MODELS).map(|_| load()));
    let taken = (resident() - before) / MODELS;
    let told = held[0].size();
    assert!((taken / 2..=taken * 2).contains(&told), "{told} bytes told, {taken} taken");
    let predicted = OnnxLoader.predict(&files).unwrap();
    assert!((taken / 2..=taken * 4).contains(&predicted), "{predicted} bytes predicted, {taken} taken");
    eprintln!("{told} bytes told, {predicted} predicted, {taken} taken");
}
