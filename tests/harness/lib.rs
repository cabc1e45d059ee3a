//! What the end-to-end tests share: a folder of manifests, a mesh that serves it, clients, the tools of others.

mod ca;
mod client;
mod faulty_link;
pub mod fleet;
mod folder;
mod in_process;
mod journal;
mod journal_file;
mod ledger;
mod mesh;
mod mlserver;
mod process;
mod raw;
mod s3;
mod tools;
mod zipf;

pub use ca::{Ca, Pems};
pub use client::{Rest, grpc, mnist_request};
pub use faulty_link::{Asked, Fault, FaultyLink};
pub use fleet::{Fleet, FleetSetup};
pub use folder::Folder;
pub use in_process::{InProcess, Setup};
pub use journal::{Habits, Journal};
pub use journal_file::{JournalFile, Life, Lives, ServerSettings, wall};
pub use ledger::LedgerWatch;
pub use mesh::{Mesh, Process, free_address, wait_until_ready};
pub use mlserver::MlServer;
pub use process::{Up, binary};
pub use raw::{RawAnswer, RawCall, framed};
pub use s3::S3;
pub use tools::{grpcurl, k6, mlserver_python, python, python_client};
pub use zipf::Zipf;
