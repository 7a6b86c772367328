//! The BAMQP daemon as a library: everything that `bamqp run` does.

pub mod config;
pub mod keys;
pub mod net;
pub mod network;
pub mod uci;
