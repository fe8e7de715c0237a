//! Promises of `docs/semantics.md`, each as a test of that name, over real sockets.
