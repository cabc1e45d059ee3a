//! Which ready copy answers a call.
