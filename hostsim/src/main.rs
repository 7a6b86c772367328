//! A BAMQP neighbourhood on a desktop.
fn main() {}
