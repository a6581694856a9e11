//! Shared fixtures of the tests: a gateway on a port of its own.
