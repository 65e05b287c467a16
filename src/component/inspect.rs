//! What a component says of itself, read without compiling it: what it imports and exports, and whether that is provided.

use wasmparser::{CanonicalFunction, CanonicalOption, Encoding, Parser, Payload};

use crate::component::declared_types::DeclaredTypes;
use crate::component::file_format::{broken, malformed};
use crate::component::interface_names::{
    INCOMING_HANDLER, RUN, interface, is_of, is_of_p3, is_of_pre_p3, other_version,
};
use crate::component::joints;
use crate::engine::config::Features;
use crate::error::Error;
use crate::guest::interfaces::HANDLER;
use crate::guest::prepared::Entry;
use crate::guest::{PROVIDED, PROVIDED_P3};

/// The names at a component's border, and what follows from them.
#[derive(Clone, Debug, Default)]
pub struct ComponentInfo {
    /// The interfaces and functions that it imports, with their versions.
    pub imports: Vec<String>,
    /// Those that it exports.
    pub exports: Vec<String>,
    /// Something in it is asynchronous, as only WASI 0.3 is: a function, a stream, a future.
    pub is_async: bool,
    /// Whether components in it call each other, and one of the two ends is `async`.
    pub has_async_joints: bool,
    /// See [`Self::wasi`].
    wasi: Wasi,
    /// See [`Self::handler`].
    handler: Option<String>,
    /// See [`Self::command`].
    command: Option<String>,
}

/// The generation of WASI that a component speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wasi {
    /// 0.2.
    #[default]
    P2,
    /// 0.3.
    P3,
}

impl ComponentInfo {
    /// Reads the names without compiling anything. Fails where the bytes are no component.
    pub fn read(binary: &[u8]) -> Result<Self, Error> {
        let (mut imports, mut exports, mut is_async) = (Vec::new(), Vec::new(), false);
        let (mut depth, mut is_nested) = (0usize, false);
        for payload in Parser::new(0).parse_all(binary) {
            let payload = payload.map_err(|error| broken(binary, &error))?;
            match payload {
                Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                    return Err(Error::InvalidComponent(
                        "not a component but a core WebAssembly module; hint: wrap it with \
                         `wasm-tools component new`, or build for the target wasm32-wasip2"
                            .into(),
                    ));
                }
                Payload::ModuleSection { .. } => depth += 1,
                Payload::ComponentSection { .. } => (depth, is_nested) = (depth + 1, true),
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentImportSection(section) if depth == 0 => {
                    for import in section {
                        let import = import.map_err(|error| malformed(&error))?;
                        imports.push(legible(import.name.name));
                    }
                }
                Payload::ComponentExportSection(section) if depth == 0 => {
                    for export in section {
                        let export = export.map_err(|error| malformed(&error))?;
                        exports.push(legible(export.name.name));
                    }
                }
                Payload::ComponentTypeSection(section) if !is_async => {
                    is_async = binary.get(section.range()).is_some_and(|bytes| DeclaredTypes::count(bytes).is_async);
                }
                Payload::ComponentCanonicalSection(section) if !is_async => {
                    is_async = section.into_iter().map_while(Result::ok).any(|function| is_async_builtin(&function));
                }
                _ => {}
            }
        }
        let mut info = Self::of(imports, exports, is_async);
        info.has_async_joints = is_async && is_nested && joints::are_async(binary);
        Ok(info)
    }

    /// A component of WASI 0.3 may be told by any of its names: it imports and exports 0.2 as well.
    fn of(imports: Vec<String>, exports: Vec<String>, is_async: bool) -> Self {
        let named = |interface, track| exports.iter().find(|name| is_of(name, interface, track)).cloned();
        let handler = named(HANDLER, "0.3");
        let is_p3 = is_async || handler.is_some() || imports.iter().chain(&exports).any(|name| is_of_p3(name));
        let (wasi, handler) = match is_p3 {
            true => (Wasi::P3, handler),
            false => (Wasi::P2, named(INCOMING_HANDLER, "0.2")),
        };
        let track = if is_p3 { "0.3" } else { "0.2" };
        let command = named(RUN, track).filter(|_| handler.is_none());
        Self { imports, exports, is_async, has_async_joints: false, wasi, handler, command }
    }

    /// What it speaks, and hence which engine it is compiled for. One that exports the handlers of both speaks 0.3; one that has
    /// nothing of 0.3 speaks 0.2.
    pub fn wasi(&self) -> Wasi {
        self.wasi
    }

    /// What its guests need of their engine, under a limit of fuel or not.
    pub(crate) fn features(&self, fuel: bool) -> Features {
        Features { fuel, concurrency: self.wasi == Wasi::P3 }
    }

    /// The export that is called with a request, if there is one.
    pub fn handler(&self) -> Option<&str> {
        self.handler.as_deref()
    }

    /// The export by which it is run, if it is a command: it has no handler, and exports `wasi:cli/run`.
    pub fn command(&self) -> Option<&str> {
        self.command.as_deref()
    }

    /// The imports that nothing provides. `has_handler`: something answers those of `wasi:http/handler@0.3`.
    pub fn missing(&self, has_handler: bool) -> Vec<String> {
        let is_provided = |name: &str| {
            PROVIDED.iter().any(|provided| is_of(name, provided, "0.2"))
                || self.wasi == Wasi::P3
                    && (PROVIDED_P3.iter().any(|provided| is_of(name, provided, "0.3"))
                        || has_handler && is_of(name, HANDLER, "0.3"))
        };
        self.imports.iter().filter(|name| !is_provided(name)).cloned().collect()
    }

    /// Whether it can pass requests on to the next handler.
    pub fn imports_handler(&self) -> bool {
        self.wasi == Wasi::P3 && self.imports.iter().any(|name| is_of(name, HANDLER, "0.3"))
    }

    /// Refuses what was built for a pre-release of WASI 0.3, before the engine stumbles over how its binary form was then.
    pub fn check_release(&self) -> Result<(), Error> {
        let names = self.imports.iter().map(|name| ("imports", name));
        let mut names = names.chain(self.exports.iter().map(|name| ("exports", name)));
        match names.find(|(_, name)| is_of_pre_p3(name)) {
            Some((verb, name)) => Err(Error::UnsupportedComponent(format!(
                "the component was built for a pre-release of WASI 0.3 (it {verb} `{name}`), which is compatible with no other \
                 version; hint: build it with a toolchain that emits WASI 0.3.0 or later"
            ).into())),
            None => Ok(()),
        }
    }

    /// Whether it can answer requests.
    pub fn check_handler(&self) -> Result<(), Error> {
        if self.handler.is_some() {
            return Ok(());
        }
        let exports = match self.exports.as_slice() {
            [] => "nothing".to_owned(),
            exports => listed(exports),
        };
        let named = |handler: &'static str| self.exports.iter().find(move |name| interface(name) == handler);
        let hint = if self.command.is_some() {
            Some("it is a command (`wasi:cli/run`): `wasgi run` runs it".to_owned())
        } else if let Some(name) = named(INCOMING_HANDLER) {
            match self.wasi {
                Wasi::P3 if is_of(name, INCOMING_HANDLER, "0.2") => Some(format!(
                    "what else it imports or exports is of WASI 0.3: it has to export `{HANDLER}@0.3`, too"
                )),
                _ => other_version(name),
            }
        } else {
            named(HANDLER).or_else(|| named(RUN)).and_then(|name| other_version(name))
        };
        let hint = hint.unwrap_or_else(|| format!("wasgi calls `{INCOMING_HANDLER}@0.2` or `{HANDLER}@0.3`"));
        Err(Error::UnsupportedComponent(
            format!("the component exports no HTTP handler: it exports {exports}; hint: {hint}").into(),
        ))
    }

    /// Whether it can be run as a command.
    pub fn check_command(&self) -> Result<(), Error> {
        if self.command.is_some() {
            return Ok(());
        }
        let hint = match (&self.handler, self.exports.iter().find(|name| interface(name) == RUN)) {
            (Some(handler), _) => format!("it handles requests (`{handler}`)"),
            (None, Some(name)) => match other_version(name) {
                Some(hint) => hint,
                None => format!("what else it imports or exports is of WASI 0.3, and it exports `{name}`"),
            },
            (None, None) => format!("wasgi runs what exports `{RUN}@0.2` or `{RUN}@0.3`"),
        };
        Err(Error::UnsupportedComponent(format!("the component is no command; hint: {hint}").into()))
    }

    /// What of it is called; an error if nothing is.
    pub(crate) fn check_entry(&self) -> Result<Entry, Error> {
        match self.command {
            Some(_) => Ok(Entry::Command),
            None => self.check_handler().map(|()| Entry::Handler),
        }
    }

    /// Whether everything that it imports is provided, see [`Self::missing`].
    pub fn check_imports(&self, has_handler: bool) -> Result<(), Error> {
        let missing = self.missing(has_handler);
        if missing.is_empty() {
            return Ok(());
        }
        let mut message = format!("the component imports what wasgi does not provide: {}", listed(&missing));
        let hint = if !has_handler && self.imports_handler() {
            format!("`App(handler=...)` answers the requests that it passes on to `{HANDLER}`")
        } else if let Some(why) = missing.iter().find_map(|name| other_version(name)) {
            why
        } else if missing.iter().any(|name| name.starts_with("wasi:")) {
            "`wasgi wit DIR` writes out what is provided".to_owned()
        } else {
            "compose the component with one that exports it (`wac plug`)".to_owned()
        };
        message.push_str(&format!("; hint: {hint}"));
        Err(Error::MissingImports { message, missing })
    }
}

/// Whether a function of the canonical ABI is one that only asynchronous components have.
fn is_async_builtin(function: &CanonicalFunction) -> bool {
    match function {
        CanonicalFunction::Lift { options, .. } | CanonicalFunction::Lower { options, .. } => {
            options.iter().any(|option| matches!(option, CanonicalOption::Async | CanonicalOption::Callback(_)))
        }
        CanonicalFunction::ResourceNew { .. }
        | CanonicalFunction::ResourceDrop { .. }
        | CanonicalFunction::ResourceRep { .. } => false,
        _ => true,
    }
}

/// A name as it may stand in a line of a log. One that is valid is as it is; others are refused later, when somebody validates them.
fn legible(name: &str) -> String {
    const LONGEST: usize = 300;
    if name.len() <= LONGEST && name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return name.to_owned();
    }
    name.escape_debug().take(LONGEST).collect()
}

/// Names for a message: not all of thousands.
fn listed(names: &[String]) -> String {
    const MOST: usize = 20;
    let shown: Vec<&str> = names.iter().take(MOST).map(String::as_str).collect();
    let more = names.len().saturating_sub(MOST);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("`{}`{rest}", shown.join("`, `"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of(imports: &[&str], exports: &[&str]) -> ComponentInfo {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        ComponentInfo::of(owned(imports), owned(exports), false)
    }

    #[test]
    fn every_missing_import_is_named() {
        let names = ["wasi:io/poll@0.2.0", "wasi:io/poll@0.3.0", "wasi:keyvalue/store@0.2.0", "acme:db/query"];
        assert_eq!(of(&names, &[]).missing(false), names.get(1..).unwrap());
    }

    #[test]
    fn one_of_0_3_finds_both_and_the_next_handler_where_there_is_one() {
        let component = of(
            &["wasi:io/poll@0.2.9", "wasi:cli/types@0.3.2", "wasi:cli/stdout@0.2.0", "wasi:http/handler@0.3.1"],
            &["wasi:http/handler@0.3.0"],
        );
        assert_eq!(component.missing(true), Vec::<String>::new());
        assert_eq!(component.missing(false), ["wasi:http/handler@0.3.1"]);
    }

    #[test]
    fn the_generation_is_told_by_the_names() {
        let told = |imports: &[&str], exports: &[&str]| {
            let component = of(imports, exports);
            (component.wasi(), component.handler().map(str::to_owned))
        };
        let (old, new) = ("wasi:http/incoming-handler@0.2.3", "wasi:http/handler@0.3.2");
        assert_eq!(told(&[], &[]), (Wasi::P2, None));
        assert_eq!(told(&[], &["wasi:cli/run@0.2.0", old]), (Wasi::P2, Some(old.into())));
        assert_eq!(told(&["wasi:io/poll@0.2.0"], &[old, new]), (Wasi::P3, Some(new.into())));
        assert_eq!(told(&["wasi:random/random@0.3.0"], &["acme:plugin/run@1.0.0"]), (Wasi::P3, None));
        assert_eq!(told(&[], &["wasi:cli/run@0.3.9"]), (Wasi::P3, None));
        let command = |imports: &[&str], exports: &[&str]| of(imports, exports).command().map(str::to_owned);
        assert_eq!(command(&[], &["wasi:cli/run@0.2.3"]).as_deref(), Some("wasi:cli/run@0.2.3"));
        assert_eq!(command(&[], &["wasi:cli/run@0.3.9"]).as_deref(), Some("wasi:cli/run@0.3.9"));
        assert_eq!(command(&["wasi:random/random@0.3.0"], &["wasi:cli/run@0.2.0"]), None);
        assert_eq!(command(&[], &["wasi:cli/run@0.2.0", old]), None, "it has a handler");
        assert_eq!(command(&[], &["wasi:cli/run@0.1.0", "acme:cli/run@0.2.0"]), None);
        assert_eq!(told(&["wasi:random/random@0.3.0"], &[old]), (Wasi::P3, None));
        // another package's 0.3 is not WASI's
        assert_eq!(told(&["acme:random/random@0.3.0", "wasi:nn/graph@0.3.0"], &[old]), (Wasi::P2, Some(old.into())));
    }

    #[test]
    fn pre_releases_of_0_3_are_refused() {
        for name in ["wasi:http/handler@0.3.0-rc-2026-03-15", "wasi:cli/types@0.3.0-draft", "wasi:http/types@0.3.1-a+b"]
        {
            for component in [of(&[name], &[]), of(&[], &["wasi:http/handler@0.3.0", name])] {
                let refused = component.check_release().unwrap_err().to_string();
                assert!(refused.contains(name), "{refused}");
            }
        }
        let others =
            ["wasi:http/types@0.3.0", "wasi:io/poll@0.2.0-rc-1", "wasi:nn/graph@0.3.0-rc-1", "acme:http/a@0.3.0-rc"];
        assert!(of(&others, &others).check_release().is_ok());
    }

    #[test]
    fn what_is_asynchronous_is_of_0_3_whatever_its_names() {
        let text = |text: &str| ComponentInfo::read(&wat::parse_str(text).unwrap()).unwrap();
        for asynchronous in [
            r#"(component (type (stream u8)))"#,
            r#"(component (type (future)))"#,
            r#"(component (type (func async)))"#,
            r#"(component (component (component (type (instance (type (future u8)))))))"#,
            r#"(component (import "a" (func async)))"#,
            r#"(component (core func (canon task.return)))"#,
            r#"(component (core func (canon waitable-set.new)))"#,
            r#"(component (import "a" (func $f)) (core module $m (memory (export "m") 1)) (core instance $i (instantiate $m))
                (core func (canon lower (func $f) async (memory (core memory $i "m")))))"#,
        ] {
            assert!(text(asynchronous).is_async, "{asynchronous}");
            assert_eq!(text(asynchronous).wasi(), Wasi::P3);
        }
        let plain = r#"(component (type $r (resource (rep i32))) (core func (canon resource.drop $r))
            (import "a" (func $f)) (core func (canon lower (func $f))))"#;
        assert!(!text(plain).is_async);
    }

    #[test]
    fn what_is_provided_is_sorted_and_no_name_twice() {
        for provided in [PROVIDED, PROVIDED_P3] {
            assert!(provided.iter().zip(provided.iter().skip(1)).all(|(one, next)| one < next));
        }
    }
}
