//! What BAMQP decides, without doing it.
#![no_std]
#![forbid(unsafe_code)]

mod lane;
pub mod limits;
pub mod plan;
pub mod reassemble;
pub mod time;
pub mod transfer;
