//! A BAMQP neighbourhood on a desktop: `run` starts real routers on loopback addresses, `model` drives the same core
//! under a virtual clock.

pub mod model;
