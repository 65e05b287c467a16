//! Whether components inside of one call each other so that the called one may outlive whoever called it.
//!
//! A task that one component's guest begins in another names its caller by a number that wasmtime gives to somebody else once the caller has
//! gone (wasmtime#14247). Whose the calls of such a task are cannot be said while several exchanges share the instance. It can where the
//! called one ends before its caller goes on: where neither end of the joint is `async`.
//!
//! What is written down is followed by instances, not by functions: of an instance that has an asynchronous function all count as that.

use std::collections::HashMap;

use wasmparser::{
    CanonicalFunction, CanonicalOption, ComponentAlias, ComponentExternalKind, ComponentInstance,
    ComponentOuterAliasKind, ComponentTypeRef, Parser, Payload,
};

/// What a function is at the end of whoever provides it; of an instance, what its functions are at the most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Lifted {
    /// The host's, or nothing.
    #[default]
    Not,
    Sync,
    Async,
}

/// How functions are called by those who have imported them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Lowered {
    #[default]
    Not,
    Sync,
    Async,
}

/// Whether the called one may outlive its caller.
fn outlives(lifted: Lifted, lowered: Lowered) -> bool {
    match (lifted, lowered) {
        (Lifted::Not, _) | (_, Lowered::Not) | (Lifted::Sync, Lowered::Sync) => false,
        (Lifted::Async, _) | (_, Lowered::Async) => true,
    }
}

/// The imports of a component that something in it may be. More than a few are all of them.
#[derive(Clone, Debug, Default)]
struct Origin {
    imports: Vec<usize>,
    all: bool,
}

const FEW: usize = 16;

impl Origin {
    fn add(&mut self, other: &Self) {
        for import in &other.imports {
            if !self.imports.contains(import) {
                self.imports.push(*import);
            }
        }
        self.all |= other.all || self.imports.len() > FEW;
        if self.all {
            self.imports.clear();
        }
    }
}

/// A function or an instance.
#[derive(Clone, Debug, Default)]
struct Provided {
    lifted: Lifted,
    origin: Origin,
}

impl Provided {
    fn add(&mut self, other: &Self) {
        self.lifted = self.lifted.max(other.lifted);
        self.origin.add(&other.origin);
    }
}

/// What whoever instantiates a component has to know of it.
struct Border<'a> {
    /// What it lifts, and what it instantiates.
    lifted: Lifted,
    /// How it calls what it imports.
    imports: HashMap<&'a str, Lowered>,
}

impl Border<'_> {
    fn lowers(&self, name: &str) -> Lowered {
        self.imports.get(name).copied().unwrap_or_default()
    }
}

/// A component that is being read.
#[derive(Default)]
struct Reading<'a> {
    lifted: Lifted,
    imports: Vec<(&'a str, Lowered)>,
    /// How all of them may be called.
    all_imports: Lowered,
    /// Of those that are known by what is written. Of others nothing is known (one that an instance exports): they may do anything.
    components: Vec<Option<usize>>,
    instances: Vec<Provided>,
    functions: Vec<Provided>,
}

impl<'a> Reading<'a> {
    fn border(self) -> Border<'a> {
        let all = self.all_imports;
        let imports = self.imports.into_iter().map(|(name, lowered)| (name, lowered.max(all))).collect();
        Border { lifted: self.lifted, imports }
    }

    /// It calls what may be these imports.
    fn lower(&mut self, origin: &Origin, lowered: Lowered) {
        if origin.all {
            self.all_imports = lowered.max(self.all_imports);
        }
        for import in &origin.imports {
            if let Some((_, before)) = self.imports.get_mut(*import) {
                *before = lowered.max(*before);
            }
        }
    }

    fn get(&self, kind: ComponentExternalKind, index: u32) -> Option<&Provided> {
        match kind {
            ComponentExternalKind::Func => self.functions.get(index as usize),
            ComponentExternalKind::Instance => self.instances.get(index as usize),
            _ => None,
        }
    }

    fn push(&mut self, kind: ComponentExternalKind, provided: Provided) {
        match kind {
            ComponentExternalKind::Func => self.functions.push(provided),
            ComponentExternalKind::Instance => self.instances.push(provided),
            ComponentExternalKind::Component => self.components.push(None),
            _ => {}
        }
    }
}

/// Whether a component is composed of others that call each other so. What is malformed is left to the validator.
pub(crate) fn are_async(binary: &[u8]) -> bool {
    let mut open = vec![Reading::default()];
    let mut known: Vec<Border<'_>> = Vec::new();
    let (mut modules, mut begun) = (0usize, false);
    for payload in Parser::new(0).parse_all(binary) {
        let Ok(payload) = payload else { break };
        match payload {
            Payload::Version { .. } if !begun => begun = true,
            Payload::ModuleSection { .. } => modules += 1,
            Payload::End(_) if modules > 0 => modules -= 1,
            Payload::ComponentSection { .. } => open.push(Reading::default()),
            Payload::End(_) => {
                let Some(done) = open.pop() else { break };
                let Some(outer) = open.last_mut() else { break };
                outer.components.push(Some(known.len()));
                known.push(done.border());
            }
            other => {
                if modules == 0 && section(other, &mut open, &known) {
                    return true;
                }
            }
        }
    }
    false
}

/// Whether there is such a joint in it.
fn section<'a>(payload: Payload<'a>, open: &mut [Reading<'a>], known: &[Border<'a>]) -> bool {
    let Some((now, around)) = open.split_last_mut() else { return false };
    match payload {
        Payload::ComponentImportSection(section) => {
            for import in section.into_iter().map_while(Result::ok) {
                let kind = match import.ty {
                    ComponentTypeRef::Func(_) => ComponentExternalKind::Func,
                    ComponentTypeRef::Instance(_) => ComponentExternalKind::Instance,
                    ComponentTypeRef::Component(_) => ComponentExternalKind::Component,
                    _ => continue,
                };
                let origin = Origin { imports: vec![now.imports.len()], all: false };
                now.imports.push((import.name.name, Lowered::Not));
                now.push(kind, Provided { lifted: Lifted::Not, origin });
            }
        }
        Payload::ComponentExportSection(section) => {
            for export in section.into_iter().map_while(Result::ok) {
                if export.kind == ComponentExternalKind::Component {
                    let component = now.components.get(export.index as usize).copied().flatten();
                    now.components.push(component);
                } else {
                    let provided = now.get(export.kind, export.index).cloned().unwrap_or_default();
                    now.push(export.kind, provided);
                }
            }
        }
        Payload::ComponentAliasSection(section) => {
            for alias in section.into_iter().map_while(Result::ok) {
                match alias {
                    ComponentAlias::InstanceExport { kind, instance_index, .. } => {
                        let of = now.get(ComponentExternalKind::Instance, instance_index).cloned();
                        now.push(kind, of.unwrap_or_default());
                    }
                    ComponentAlias::Outer { kind: ComponentOuterAliasKind::Component, count, index } => {
                        let count = count as usize;
                        let place = match count {
                            0 => Some(&now.components),
                            _ => around.len().checked_sub(count).and_then(|at| around.get(at)).map(|at| &at.components),
                        };
                        let component = place.and_then(|all| all.get(index as usize).copied()).flatten();
                        now.components.push(component);
                    }
                    ComponentAlias::Outer { .. } | ComponentAlias::CoreInstanceExport { .. } => {}
                }
            }
        }
        Payload::ComponentCanonicalSection(section) => {
            for function in section.into_iter().map_while(Result::ok) {
                match function {
                    CanonicalFunction::Lift { options, .. } => {
                        let lifted = if is_async(&options) { Lifted::Async } else { Lifted::Sync };
                        now.lifted = lifted.max(now.lifted);
                        now.functions.push(Provided { lifted, origin: Origin::default() });
                    }
                    CanonicalFunction::Lower { func_index, options } => {
                        let lowered = if is_async(&options) { Lowered::Async } else { Lowered::Sync };
                        let Some(function) = now.functions.get(func_index as usize).cloned() else { continue };
                        if outlives(function.lifted, lowered) {
                            return true;
                        }
                        now.lower(&function.origin, lowered);
                    }
                    _ => {}
                }
            }
        }
        Payload::ComponentInstanceSection(section) => {
            for instance in section.into_iter().map_while(Result::ok) {
                let mut made = Provided::default();
                match instance {
                    ComponentInstance::FromExports(exports) => {
                        let all = exports.iter().filter_map(|export| now.get(export.kind, export.index));
                        all.for_each(|export| made.add(export));
                    }
                    ComponentInstance::Instantiate { component_index, args } => {
                        let border = now.components.get(component_index as usize).copied().flatten();
                        let border = border.and_then(|border| known.get(border));
                        made.lifted = border.map_or(Lifted::Async, |border| border.lifted);
                        now.lifted = made.lifted.max(now.lifted);
                        for arg in &args {
                            let Some(given) = now.get(arg.kind, arg.index).cloned() else { continue };
                            let lowered = border.map_or(Lowered::Async, |border| border.lowers(arg.name));
                            if outlives(given.lifted, lowered) {
                                return true;
                            }
                            now.lower(&given.origin, lowered);
                            made.add(&given); // it may export what it was given
                        }
                    }
                }
                now.instances.push(made);
            }
        }
        _ => {}
    }
    false
}

fn is_async(options: &[CanonicalOption]) -> bool {
    options.iter().any(|option| matches!(option, CanonicalOption::Async))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const OWN: &str = r#"
      (core module $m
        (memory (export "memory") 1)
        (func (export "run"))
        (func (export "begin") (result i32) unreachable)
        (func (export "on") (param i32 i32 i32) (result i32) unreachable))
      (core instance $i (instantiate $m))"#;

    /// One that exports a function.
    fn callee(is_async: bool) -> String {
        let (begin, options) = match is_async {
            true => ("begin", r#"async (callback (core func $i "on"))"#),
            false => ("run", ""),
        };
        format!(
            r#"(component {OWN}
              (func $f async (canon lift (core func $i "{begin}") {options}))
              (export "f" (func $f)))"#
        )
    }

    /// One that imports a function, in an instance or alone, and calls it; it exports an asynchronous one of its own.
    fn caller(is_async: bool) -> String {
        let options = if is_async { "async" } else { "" };
        format!(
            r#"(component (import "f" (func $f async)) {OWN}
              (core func $lowered (canon lower (func $f) {options}))
              (func $g async (canon lift (core func $i "begin") async (callback (core func $i "on"))))
              (export "g" (func $g)))"#
        )
    }

    fn found(text: &str) -> bool {
        let binary = wat::parse_str(text).unwrap();
        let mut features = wasmparser::WasmFeatures::all();
        features.remove(wasmparser::WasmFeatures::CM_VALUES);
        wasmparser::Validator::new_with_features(features).validate_all(&binary).unwrap();
        are_async(&binary)
    }

    fn composed(callee: &str, caller: &str) -> bool {
        found(&format!(
            r#"(component
              (component $callee {})
              (component $caller {})
              (instance $a (instantiate $callee))
              (instance $b (instantiate $caller (with "f" (func $a "f"))))
              (export "g" (func $b "g")))"#,
            inner(callee),
            inner(caller)
        ))
    }

    /// What is between `(component` and its end.
    fn inner(component: &str) -> &str {
        component.strip_prefix("(component").and_then(|rest| rest.strip_suffix(')')).unwrap()
    }

    #[test]
    fn an_end_that_is_async_makes_a_joint_where_the_called_one_may_outlive_its_caller() {
        for (lifted, lowered) in [(false, false), (false, true), (true, false), (true, true)] {
            assert_eq!(composed(&callee(lifted), &caller(lowered)), lifted || lowered, "{lifted} {lowered}");
        }
    }

    #[test]
    fn one_that_is_composed_of_nothing_has_none() {
        for is_async in [false, true] {
            assert!(!found(&callee(is_async)));
            assert!(!found(&caller(is_async)), "what it imports is the host's");
        }
        for name in ["hello_p3", "probe_p3", "middleware", "spin", "everything_p3", "probe"] {
            let binary = std::fs::read(format!("tests/guests/components/{name}.wasm")).unwrap();
            assert!(!are_async(&binary), "{name}");
        }
    }

    /// As `wit-component` has it: what is lifted goes through a component that exports it, and calls nothing.
    #[test]
    fn what_is_handed_on_is_not_called() {
        assert!(!found(&format!(
            r#"(component {OWN}
              (func $f async (canon lift (core func $i "begin") async (callback (core func $i "on"))))
              (component $shim (import "f" (func $f async)) (export "g" (func $f)))
              (instance $exported (instantiate $shim (with "f" (func $f))))
              (export "all" (instance $exported)))"#
        )));
    }

    #[test]
    fn what_went_through_others_is_found() {
        let inside = |middle: &str| {
            format!(
                r#"(component
                  (component $callee {})
                  (component $caller {})
                  (component $middle (import "all" (instance $all (export "f" (func async)))) {middle})
                  (instance $a (instantiate $callee))
                  (instance $b (instantiate $middle (with "all" (instance $a)))))"#,
                inner(&callee(true)),
                inner(&caller(false))
            )
        };
        assert!(!found(&inside("")), "nobody calls it");
        // an import that is handed on, to a component that is written around it
        assert!(found(&inside(
            r#"(alias outer 1 $caller (component $again))
               (alias export $all "f" (func $f))
               (instance $c (instantiate $again (with "f" (func $f))))"#
        )));
        // in a group
        assert!(found(&inside(
            r#"(alias export $all "f" (func $f))
               (instance $group (export "f" (func $f)))
               (alias export $group "f" (func $again))
               (core func $lowered (canon lower (func $again)))"#
        )));
    }

    #[test]
    fn a_component_of_which_nothing_is_known_may_do_anything() {
        let calls = |called: &str| {
            format!(
                r#"(component
                  (component $pack (component $callee {}) (export "c" (component $callee)))
                  (component $callee {})
                  (instance $p (instantiate $pack))
                  (alias export $p "c" (component $again))
                  (instance $bag (export "c" (component $callee)))
                  (alias export $bag "c" (component $out))
                  (instance $a (instantiate {called}))
                  (alias export $a "f" (func $f))
                  (core func $lowered (canon lower (func $f))))"#,
                inner(&callee(true)),
                inner(&callee(false))
            )
        };
        assert!(!found(&calls("$callee")), "it is known");
        assert!(found(&calls("$again")));
        assert!(found(&calls("$out")));
    }

    #[test]
    fn a_component_that_calls_what_it_has_instantiated_is_found() {
        assert!(found(&format!(
            r#"(component
              (component $callee {})
              (instance $a (instantiate $callee))
              (alias export $a "f" (func $f))
              (core func $lowered (canon lower (func $f))))"#,
            inner(&callee(true))
        )));
    }

    #[test]
    fn many_imports_in_one_group_are_any_of_them() {
        let mut origin = Origin::default();
        for import in 0..=FEW {
            assert!(!origin.all);
            origin.add(&Origin { imports: vec![import], all: false });
        }
        assert!(origin.all && origin.imports.is_empty());
        let mut reading = Reading { imports: vec![("a", Lowered::Not), ("b", Lowered::Async)], ..Reading::default() };
        reading.lower(&origin, Lowered::Sync);
        let border = reading.border();
        assert_eq!(
            (border.lowers("a"), border.lowers("b"), border.lowers("c")),
            (Lowered::Sync, Lowered::Async, Lowered::Not)
        );
    }
}
