//! The wire contracts of Modelring and nothing else.
//!
//! - [`inference`]: the KServe v2 inference protocol that clients and model servers speak.
//! - [`mmesh`]: `mmesh.ModelRuntime`, by which an agent drives a custom model server, and `mmesh.ModelMesh`, the
//!   management interface of ModelMesh.
//! - [`v1`]: `modelring.v1`, what control, proxies and agents say to each other.

// Generated code: its comments come from the .proto files.
#![allow(missing_docs, unreachable_pub)]

/// `inference.GRPCInferenceService`, KServe v2.
pub mod inference {
    tonic::include_proto!("inference");
}

/// `mmesh.ModelRuntime` and `mmesh.ModelMesh`.
pub mod mmesh {
    tonic::include_proto!("mmesh");
}

/// `modelring.v1`.
pub mod v1 {
    tonic::include_proto!("modelring.v1");
}

/// Protocol number of `modelring.v1`, carried by the first message of every stream.
pub const PROTOCOL: u32 = 1;

/// The encoded `FileDescriptorSet` of all contracts, for gRPC server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
