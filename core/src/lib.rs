//! What BAMQP decides, without doing it.
#![no_std]
#![forbid(unsafe_code)]

pub mod address;
pub mod announce;
pub mod base64;
pub mod channel;
pub mod decide;
pub mod discover;
pub mod hops;
pub mod hours;
pub mod http;
mod lane;
pub mod layout;
pub mod ledger;
pub mod lesson;
pub mod limits;
pub mod message;
pub mod plan;
pub mod quota;
pub mod reassemble;
pub mod refuse;
pub mod rules;
pub mod select;
pub mod signature;
pub mod spare;
pub mod time;
pub mod transfer;
pub mod trust;
pub mod verify;
