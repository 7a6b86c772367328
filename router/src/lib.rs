//! The BAMQP daemon as a library: everything that `bamqp run` does.

pub mod clock;
pub mod config;
pub mod fetch;
pub mod inbox;
pub mod keys;
pub mod live;
pub mod net;
pub mod origin;
pub mod pace;
pub mod relay;
pub mod serve;
pub mod uci;
