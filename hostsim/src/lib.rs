//! A BAMQP neighbourhood on a desktop, as a library for the `hostsim` command and for its tests.
//!
//! `run` starts real routers with real sockets on loopback addresses; `model` drives the same core under a
//! virtual clock. Both use the same arithmetic for an internet connection:
//!
//! ```text
//! args ──▶ run ──▶ origin ──▶ answer (what HTTP says)     model (virtual clock)
//!           │        └─────▶ flow (TCP's start) ──▶ link (rate, delay, queue) ◀──┘
//!           ├────▶ fault (what goes wrong, and when)
//!           ├────▶ client (the household's program)
//!           └────▶ report (the summary, and as JSON)
//! ```

pub mod answer;
pub mod fault;
pub mod flow;
pub mod link;
pub mod origin;
mod paced;
