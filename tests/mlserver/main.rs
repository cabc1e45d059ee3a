//! Real MLServer, driven by the agent.

mod adapter;
mod agent;
mod models;
mod served;
