//! No start-up code of the C library: `_start` is ours. Of the library itself only memcpy and its like are used, which
//! the compiler calls.

fn main() {
    println!("cargo:rustc-link-arg-bins=-nostartfiles");
    println!("cargo:rustc-link-arg-bins=-lc");
}
