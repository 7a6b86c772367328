//! A BAMQP neighbourhood on a desktop, as a library for the `hostsim` command and for its tests: `run` starts real
//! routers on loopback addresses, `model` drives the same core under a virtual clock.
//!
//! ```text
//! args ─▶ run ─▶ neighbourhood ─▶ router's Daemon, one per house
//!          │          └─▶ origin ─▶ answer (what HTTP says)
//!          │                 └─▶ paced ─▶ flow (TCP's start) ─▶ link (rate, delay, queue)
//!          ├─▶ topology (who hears whom)
//!          ├─▶ fault (what goes wrong, and when)
//!          ├─▶ judge (who had to be found out)
//!          ├─▶ client (the household's program), progress
//!          └─▶ report (the summary, and as JSON)
//! ```

pub mod answer;
pub mod args;
pub mod attack;
pub mod client;
pub mod fault;
pub mod flow;
pub mod household;
pub mod judge;
pub mod link;
pub mod model;
pub mod neighbourhood;
pub mod origin;
mod paced;
pub mod progress;
pub mod report;
pub mod run;
pub mod topology;
