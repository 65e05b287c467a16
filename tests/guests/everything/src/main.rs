//! Writes a component that imports everything in a world of wit/, and whose handler is `unreachable`.
//!
//! Unlike the other guests this is a program for the building machine: `everything WIT-FOLDER WORLD COMPONENT`.

use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};
use wit_parser::{LiftLowerAbi, ManglingAndAbi, Resolve, WorldItem};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [wit, world, target] = arguments.as_slice() else {
        panic!("usage: everything WIT-FOLDER WORLD COMPONENT");
    };
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(wit).unwrap();
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    let is_async = resolve.worlds[world].exports.values().any(|export| match export {
        WorldItem::Interface { id, .. } => {
            let mut functions = resolve.interfaces[*id].functions.values();
            functions.any(|function| function.kind.is_async())
        }
        _ => false,
    });
    let abi = ManglingAndAbi::Legacy(match is_async {
        true => LiftLowerAbi::AsyncCallback,
        false => LiftLowerAbi::Sync,
    });
    let mut module = dummy_module(&resolve, world, abi);
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    let encoder = ComponentEncoder::default().module(&module).unwrap();
    let component = encoder.validate(true).encode().unwrap();
    std::fs::write(target, component).unwrap();
}
