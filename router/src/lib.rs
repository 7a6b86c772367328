//! The BAMQP daemon as a library: everything that `bamqp run` does.
//!
//! ```text
//! client ─▶ accept (limits) ─▶ proxy (a connection, request by request) ─▶ origin (checked addresses)
//!                                         └▶ exchange (a request and its response)
//!                                              ├─ no:  relay (pumps inside the kernel)
//!                                              └─ yes: coordinate (peers help)
//! ```
//!
//! What is decided is decided in `bamqp-core`; this crate has the sockets, threads, files and the clock.

mod accept;
pub mod answer;
pub mod approve;
pub mod budget;
pub mod clock;
mod commission;
pub mod config;
pub mod control;
pub mod coordinate;
pub mod daemon;
mod delegate;
pub mod discover;
mod exchange;
pub mod fetch;
pub mod inbox;
pub mod keyring;
pub mod keys;
mod lane;
pub mod ledger_check;
pub mod ledger_file;
pub mod live;
mod multicast;
pub mod names;
pub mod net;
pub mod origin;
pub mod origin_memory;
pub mod own_link;
mod own_networks;
pub mod pace;
pub mod peers;
pub mod proxy;
pub mod relay;
pub mod reload;
mod replace;
pub mod seats;
pub mod serve;
pub mod session;
pub mod signals;
mod sparingly;
pub mod status;
pub mod trust_store;
pub mod uci;
pub mod uplink;
mod wan;
pub mod window;
