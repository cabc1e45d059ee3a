//! Compiles the `.proto` files with protox, so that no `protoc` is needed.
use std::{env, fs, path::PathBuf};

use prost::Message;

const FILES: [&str; 4] = [
    "inference/grpc_inference_service.proto",
    "mmesh/model_runtime.proto",
    "mmesh/model_mesh.proto",
    "modelring/v1/modelring.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // Tensor bytes are sliced out of the message, not copied.
        .bytes(".inference.ModelInferRequest.raw_input_contents")
        .bytes(".inference.ModelInferResponse.raw_output_contents")
        .bytes(".inference.InferTensorContents.bytes_contents")
        .compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
