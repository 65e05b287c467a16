//! Writes a component that imports everything in the world of wit/, and whose handler is `unreachable`.
//!
//! Unlike the other guests this is a program for the building machine: `everything WIT-FOLDER COMPONENT`.

use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};
use wit_parser::{LiftLowerAbi, ManglingAndAbi, Resolve};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [wit, target] = arguments.as_slice() else {
        panic!("usage: everything WIT-FOLDER COMPONENT");
    };
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(wit).unwrap();
    let world = resolve
        .select_world(&[package], Some("http-handler"))
        .unwrap();
    let abi = ManglingAndAbi::Legacy(LiftLowerAbi::Sync);
    let mut module = dummy_module(&resolve, world, abi);
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    let encoder = ComponentEncoder::default().module(&module).unwrap();
    let component = encoder.validate(true).encode().unwrap();
    std::fs::write(target, component).unwrap();
}
