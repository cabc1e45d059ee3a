//! The control plane: desired state in, tables out.
