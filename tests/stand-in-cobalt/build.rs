//! Gives the stand-in the soname of the library that it stands in for.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcobalt.so.2");
}
