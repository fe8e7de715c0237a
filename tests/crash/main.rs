//! The broker is killed at any moment; what it promised holds.
