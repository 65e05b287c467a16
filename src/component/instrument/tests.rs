//! Components of all kinds, instrumented.

use super::*;

fn instrumented(text: &str) -> Result<Vec<u8>, NotRestorable> {
    let binary = wat::parse_str(text).unwrap();
    let made = instrument(&binary)?;
    Validator::new_with_features(WasmFeatures::all()).validate_all(&made).unwrap();
    Ok(made)
}

/// A component with these core modules, each instantiated once.
fn of_modules(modules: &[&str]) -> String {
    let parts: String = modules
        .iter()
        .enumerate()
        .map(|(at, module)| format!("(core module $m{at} {module}) (core instance (instantiate $m{at}))"))
        .collect();
    format!("(component {parts})")
}

#[test]
fn what_it_exports_is_there() {
    let made = instrumented(&of_modules(&[
        "(memory 1) (global (mut i32) (i32.const 7)) (func (drop (i32.const 1)))",
        "(memory (export \"mem\") 2 3) (global (export \"g\") (mut v128) (v128.const i64x2 1 2)) (global (mut f64) (f64.const 1))",
        "(func)",
    ]))
    .unwrap();
    let text = wasmparser::Parser::new(0)
        .parse_all(&made)
        .filter_map(|payload| match payload.unwrap() {
            Payload::ComponentExportSection(section) => Some(section),
            _ => None,
        })
        .flat_map(|section| section.into_iter().map(|export| export.unwrap().name.name.to_owned()).collect::<Vec<_>>())
        .collect::<Vec<_>>();
    assert_eq!(text, [SAVE, RESTORE]);
}

#[test]
fn handles_of_all_resources_that_it_imports_can_be_taken() {
    let made = instrumented(
        "(component
           (import \"a\" (type $a (sub resource)))
           (import \"i\" (instance $i (export \"b\" (type $b (sub resource))) (export \"same\" (type (eq $b)))))
           (alias export $i \"b\" (type $b))
           (import \"j\" (instance (export \"b\" (type (eq $b))) (export \"c\" (type (sub resource))))))",
    )
    .unwrap();
    let tuples: Vec<usize> = wasmparser::Parser::new(0)
        .parse_all(&made)
        .filter_map(|payload| match payload.unwrap() {
            Payload::ComponentTypeSection(section) => Some(section),
            _ => None,
        })
        .flat_map(|section| section.into_iter().map(Result::unwrap).collect::<Vec<_>>())
        .filter_map(|ty| match ty {
            wasmparser::ComponentType::Defined(wasmparser::ComponentDefinedType::Tuple(types)) => Some(types.len()),
            _ => None,
        })
        .collect();
    assert_eq!(tuples, [3]);
}

#[test]
fn the_guests_of_the_tests_can_be_instrumented() {
    for name in ["hello", "hello_p3", "probe", "probe_p3"] {
        let binary = std::fs::read(format!("tests/guests/components/{name}.wasm")).unwrap();
        let made = instrument(&binary).unwrap();
        Validator::new_with_features(WasmFeatures::all()).validate_all(&made).unwrap();
        // what was there is there still, at its place or further on
        assert!(made.len() > binary.len());
    }
}

#[test]
fn what_cannot_be_put_back_is_told() {
    let table = |body: &str| of_modules(&[&format!("(table $t 1 funcref) (elem $e funcref) (func {body})")]);
    for (text, expected) in [
        (table("(table.set 0 (i32.const 0) (ref.null func))"), NotRestorable::Operator("table.set")),
        (table("(drop (table.grow 0 (ref.null func) (i32.const 1)))"), NotRestorable::Operator("table.grow")),
        (table("(table.fill 0 (i32.const 0) (ref.null func) (i32.const 1))"), NotRestorable::Operator("table.fill")),
        (table("(table.copy 0 0 (i32.const 0) (i32.const 0) (i32.const 0))"), NotRestorable::Operator("table.copy")),
        (table("(table.init $e (i32.const 0) (i32.const 0) (i32.const 0))"), NotRestorable::Operator("table.init")),
        (table("(elem.drop $e)"), NotRestorable::Operator("elem.drop")),
        (of_modules(&["(memory 1) (data $d \"a\") (func (data.drop $d))"]), NotRestorable::Operator("data.drop")),
        (of_modules(&["(memory 1 1 shared)"]), NotRestorable::Memory("shared")),
        (of_modules(&["(memory i64 1)"]), NotRestorable::Memory("one of 64 bits")),
        (of_modules(&["(global (mut funcref) (ref.null func))"]), NotRestorable::Reference),
        (of_modules(&["(func (export \"wasgi:m0\"))"]), NotRestorable::Name("wasgi:m0".into())),
        ("(component (component (core module)))".into(), NotRestorable::Nested),
        (
            "(component (core module $m)
               (component $c (import \"m\" (core module $i)) (core instance (instantiate $i)))
               (instance (instantiate $c (with \"m\" (core module $m)))))"
                .into(),
            NotRestorable::Nested,
        ),
        ("(component (import \"m\" (core module $m)) (core instance (instantiate $m)))".into(), NotRestorable::Module),
        (
            "(component (type $r (resource (rep i32))) (core func (canon resource.new $r)))".into(),
            NotRestorable::Resources,
        ),
        (
            "(component (import \"wasgi-restore-memory\" (func)))".into(),
            NotRestorable::Name("wasgi-restore-memory".into()),
        ),
    ] {
        assert_eq!(instrumented(&text).unwrap_err(), expected, "{text}");
    }
}

#[test]
fn whatever_is_cut_off_is_malformed() {
    let binary = std::fs::read("tests/guests/components/hello.wasm").unwrap();
    for length in (0..binary.len()).step_by(997) {
        assert!(matches!(instrument(binary.get(..length).unwrap()), Err(NotRestorable::Malformed(_))), "{length}");
    }
}

#[test]
fn a_component_of_nothing_has_nothing_to_put_back() {
    instrumented("(component)").unwrap();
}
