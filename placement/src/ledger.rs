//! The account of a pod's memory.
