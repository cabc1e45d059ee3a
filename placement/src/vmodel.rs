//! When a changed InferenceService switches.
