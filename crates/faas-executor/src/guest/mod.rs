//! The gateway side of the guest protocol.
