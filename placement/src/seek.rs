//! Whom to join or ask when no copy is ready, and when to give up.
