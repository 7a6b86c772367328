//! What BAMQP decides, without doing it.
#![no_std]
#![forbid(unsafe_code)]

pub mod http;
pub mod limits;
pub mod time;
