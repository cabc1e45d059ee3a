//! The order of the instances that may hold a model.
