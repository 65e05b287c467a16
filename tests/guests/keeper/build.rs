//! More memory than the guest uses: its last page is nobody's, and it does not grow with each body.

fn main() {
    println!("cargo:rustc-cdylib-link-arg=--initial-memory=3145728");
}
