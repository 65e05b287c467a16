//! Components of all kinds, instrumented.

use super::*;
use crate::guest::restoring::{LEFT, RESTORE, SAVE, TAKE, memory_name, name};

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
    assert_eq!(exports(&made), [name(SAVE, 0), name(RESTORE, 0), name(LEFT, 0), memory_name(0, 1)]);
}

/// What a component exports, not those inside of it.
fn exports(binary: &[u8]) -> Vec<String> {
    let (mut depth, mut names) = (0, Vec::new());
    for payload in Parser::new(0).parse_all(binary) {
        match payload.unwrap() {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ComponentExportSection(section) if depth == 1 => {
                names.extend(section.into_iter().map(|export| export.unwrap().name.name.to_owned()));
            }
            _ => {}
        }
    }
    names
}

/// One with a memory, and one without that could have handles.
const INSIDE: &str = "
    (component $plain (core module $m (memory 1) (global (mut i32) (i32.const 1))) (core instance (instantiate $m)))
    (component $taking (import \"r\" (type (sub resource))) (core module $m) (core instance (instantiate $m)))";

#[test]
fn each_component_with_code_has_an_agent() {
    let made = instrumented(&format!(
        "(component
           (import \"r\" (type $r (sub resource)))
           (component $middle {INSIDE}
             (import \"r\" (type $r (sub resource)))
             (instance (instantiate $taking (with \"r\" (type $r))))
             (instance (instantiate $plain))
             (component $nothing (component))
             (instance (instantiate $nothing)))
           (core module $m (memory 1) (memory 2))
           (core instance (instantiate $m))
           (instance (instantiate $middle (with \"r\" (type $r))))
           (component $again (alias outer 1 $middle (component $c)) (import \"r\" (type $r (sub resource)))
             (instance (instantiate $c (with \"r\" (type $r)))))
           (instance (instantiate $again (with \"r\" (type $r)))))"
    ))
    .unwrap();
    let of = |agent, takes: bool, memories: std::ops::Range<usize>| {
        let take = takes.then(|| name(TAKE, agent));
        let memories = memories.skip(1).map(move |memory| memory_name(agent, memory));
        [SAVE, RESTORE, LEFT].map(|what| name(what, agent)).into_iter().chain(take).chain(memories)
    };
    let expected = of(0, true, 0..2)
        .chain(of(1, true, 0..0))
        .chain(of(2, false, 0..1))
        .chain(of(3, true, 0..0))
        .chain(of(4, false, 0..1));
    assert_eq!(exports(&made), expected.collect::<Vec<_>>());
}

#[test]
fn one_that_is_composed_of_others_has_no_agent_of_its_own() {
    let made = instrumented(&format!("(component {INSIDE} (instance (instantiate $plain)))")).unwrap();
    assert_eq!(exports(&made), [SAVE, RESTORE, LEFT].map(|what| name(what, 0)));
}

#[test]
fn a_component_inside_that_nothing_runs_in_stays_as_it_is() {
    let inner = "(component $c (import \"f\" (func $f)) (export \"f\" (func $f)))";
    let binary =
        wat::parse_str(format!("(component {inner} (core module $m) (core instance (instantiate $m)))")).unwrap();
    let made = instrument(&binary).unwrap();
    let alone = wat::parse_str(inner).unwrap();
    let alone = alone.get(..alone.len() - 15).unwrap(); // without its name
    assert!(made.windows(alone.len()).any(|bytes| bytes == alone));
}

#[test]
fn instances_of_components_that_are_many_are_refused() {
    // each level instantiates the one before twice
    let levels = |levels: usize| {
        let mut text = String::from(INSIDE);
        let mut before = "$plain".to_owned();
        for level in 0..levels {
            let outer = format!("$c{level}");
            text += &format!(
                "(component {outer} (alias outer 1 {before} (component $c))
                   (instance (instantiate $c)) (instance (instantiate $c)))"
            );
            before = outer;
        }
        instrumented(&format!("(component {text} (instance (instantiate {before})))"))
    };
    levels(5).unwrap();
    assert_eq!(levels(6).unwrap_err(), NotRestorable::Instances(MOST_AGENTS));
}

/// One inside of it has a function with such a parameter, another one has code of its own.
fn lent(parameter: &str) -> Result<Vec<u8>, NotRestorable> {
    instrumented(
        &format!(
            "(component
           (import \"r\" (type $r (sub resource)))
           (component $callee
             (import \"r\" (type $r (sub resource)))
             (core module $m
               (memory (export \"m\") 1)
               (func (export \"f\") (param i32))
               (func (export \"g\") (param i32 i32))
               (func (export \"realloc\") (param i32 i32 i32 i32) (result i32) unreachable))
             (core instance $i (instantiate $m))
             {parameter}
             (func (param \"p\" $p) (canon lift (core func $i \"CORE\")
               (memory (core memory $i \"m\")) (realloc (core func $i \"realloc\")))))
           (component $other (core module $m) (core instance (instantiate $m)))
           (instance (instantiate $other))
           (instance (instantiate $callee (with \"r\" (type $r)))))"
        )
        .replace("CORE", if parameter.contains("list") || parameter.contains("option") { "g" } else { "f" }),
    )
}

/// Handles that they make lie where no agent reaches them.
#[test]
fn functions_that_are_built_in_need_a_core_module_beside_them() {
    let inside = |module: &str| {
        instrumented(&format!(
            "(component
               (component $inner {module}
                 (core func $new (canon waitable-set.new))
                 (func (export \"new\") (result u32) (canon lift (core func $new))))
               (instance $inner (instantiate $inner))
               (core module $m)
               (core instance (instantiate $m)))"
        ))
    };
    assert_eq!(inside("").unwrap_err(), NotRestorable::BuiltIns);
    assert_eq!(inside("(core module $m) (core instance)").unwrap_err(), NotRestorable::BuiltIns);
    inside("(core module $m) (core instance (instantiate $m))").unwrap();
}

#[test]
fn handles_that_one_component_lends_another_are_not_counted() {
    let borrow = "(type $p (borrow $r))";
    for lends in [
        borrow.to_owned(),
        "(type $b (borrow $r)) (type $p (list $b))".to_owned(),
        "(type $b (borrow $r)) (type $o (option $b)) (type $p (option $o))"
            .to_owned()
            .replace("(type $p (option $o))", "(type $p (list $o))"),
        "(type $b (borrow $r)) (type $p (tuple $b))".to_owned(),
    ] {
        assert_eq!(lent(&lends).unwrap_err(), NotRestorable::Lent, "{lends}");
    }
    for gives in ["(type $p (own $r))", "(type $o (own $r)) (type $p (list $o))", "(type $p (tuple u32))"] {
        lent(gives).unwrap();
    }
    // the host's handles are counted
    instrumented(
        "(component
           (import \"r\" (type $r (sub resource)))
           (core module $m (func (export \"f\") (param i32)))
           (core instance $i (instantiate $m))
           (type $p (borrow $r))
           (func (param \"p\" $p) (canon lift (core func $i \"f\"))))",
    )
    .unwrap();
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
    assert_eq!(tuples, [1, 3], "what the agent returns, and all types of handles");
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
        (
            "(component (component $c (core module $m (table 1 funcref)
               (func (table.set 0 (i32.const 0) (ref.null func))))))"
                .into(),
            NotRestorable::Operator("table.set"),
        ),
        (
            "(component (component $c (type $r (resource (rep i32))) (core func (canon resource.new $r))))".into(),
            NotRestorable::Resources,
        ),
        (
            "(component (component $c (core module $m (func (export \"wasgi:g0\")))))".into(),
            NotRestorable::Name("wasgi:g0".into()),
        ),
        (
            "(component (component $c (component $d (import \"wasgi-restore-save-a0\" (func)))))".into(),
            NotRestorable::Name("wasgi-restore-save-a0".into()),
        ),
        (
            "(component (core module $m) (component $c (alias outer 1 $m (core module $n))
               (core instance (instantiate $n))) (instance (instantiate $c)))"
                .into(),
            NotRestorable::Module,
        ),
        (
            "(component (component $d)
               (component $c (import \"c\" (component $i)) (instance (instantiate $i)))
               (instance (instantiate $c (with \"c\" (component $d)))))"
                .into(),
            NotRestorable::Component,
        ),
        ("(component (import \"c\" (component $c)) (instance (instantiate $c)))".into(), NotRestorable::Component),
        (
            "(component (component $c (component $d) (export \"d\" (component $d)))
               (instance $i (instantiate $c)) (alias export $i \"d\" (component $e)) (instance (instantiate $e)))"
                .into(),
            NotRestorable::Component,
        ),
        (
            "(component (core module $m)
               (component $c (import \"m\" (core module $i)) (core instance (instantiate $i)))
               (instance (instantiate $c (with \"m\" (core module $m)))))"
                .into(),
            NotRestorable::Module,
        ),
        ("(component (import \"m\" (core module $m)) (core instance (instantiate $m)))".into(), NotRestorable::Module),
        (
            "(component (type $r (resource (rep i32))) (core func (canon resource.new $r)))".into(),
            NotRestorable::Resources,
        ),
        ("(component (import \"wasgi-restore-save\" (func)))".into(), NotRestorable::Name("wasgi-restore-save".into())),
    ] {
        assert_eq!(instrumented(&text).unwrap_err(), expected, "{text}");
    }
}

#[test]
fn types_that_only_those_inside_know_are_told() {
    let refused = instrumented(
        "(component
           (component $owner (type $r (resource (rep i32))) (export \"r\" (type $r)))
           (component $user (import \"r\" (type (sub resource))) (core module $m) (core instance (instantiate $m)))
           (component $other (core module $m) (core instance (instantiate $m)))
           (instance (instantiate $other))
           (instance $owner (instantiate $owner))
           (instance (instantiate $user (with \"r\" (type $owner \"r\")))))",
    );
    assert!(matches!(refused, Err(NotRestorable::Types(_))), "{refused:?}");
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
