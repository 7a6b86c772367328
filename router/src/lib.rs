//! The BAMQP daemon as a library: everything that `bamqp run` does.
