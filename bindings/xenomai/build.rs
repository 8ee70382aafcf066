//! With the feature `link-cobalt`: where the linker finds libcobalt. Without it nothing is to be
//! done, because the library is looked up when the program runs.

use std::path::Path;

const DIRECTORY: &str = "COBALT_LIB_DIR";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed={DIRECTORY}");
    if std::env::var_os("CARGO_FEATURE_LINK_COBALT").is_none() {
        return;
    }
    match library_directory() {
        Ok(directory) => println!("cargo:rustc-link-search=native={directory}"),
        Err(why) => {
            eprintln!("error: feature link-cobalt: {why}");
            std::process::exit(1);
        }
    }
}

fn library_directory() -> Result<String, String> {
    let directory = std::env::var(DIRECTORY).map_err(|_| {
        format!(
            "{DIRECTORY} is not set; name the directory of libcobalt.so, e.g. {DIRECTORY}=$(xeno-config --libdir) \
             cargo build, or build without the feature to load the library at run time"
        )
    })?;
    let library = Path::new(&directory).join("libcobalt.so");
    if library.exists() {
        return Ok(directory);
    }
    Err(format!(
        "{DIRECTORY}={directory} holds no libcobalt.so; it is part of Xenomai's development package, \
         xeno-config --libdir prints its directory"
    ))
}
