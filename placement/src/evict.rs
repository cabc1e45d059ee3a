//! Which copy goes next.
