//! How many copies a model should have.
