//! What peers bring is compared with what the own link has, by real daemons: with nginx and curl (`nginx`), and with an origin
//! that answers requests for several ranges in every way that origins do (`parts`).

#[path = "../common/mod.rs"]
mod common;

mod nginx;
mod parts;
