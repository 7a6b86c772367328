//! The `bamqp` command.
fn main() {}
