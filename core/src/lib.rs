//! What BAMQP decides, without doing it.
#![no_std]
#![forbid(unsafe_code)]

pub mod address;
pub mod decide;
pub mod http;
pub mod limits;
pub mod message;
pub mod refuse;
pub mod time;
