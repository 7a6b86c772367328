//! The BAMQP daemon as a library: everything that `bamqp run` does.

pub mod config;
pub mod keys;
pub mod live;
pub mod net;
pub mod network;
pub mod origin;
pub mod uci;
