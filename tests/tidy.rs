//! The rules of `ARCHITECTURE.md`, as a test.
