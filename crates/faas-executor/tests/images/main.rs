//! Tests of the image store. They are in a module, so that `cargo nextest run images` runs them with the others of
//! that name.

#[cfg(test)]
#[path = "mod.rs"]
mod images;
