//! Native sandboxes.
