//! Names of interfaces with their versions, and which of them are one that is provided.

use crate::guest::interfaces::HANDLER;
use crate::guest::{PROVIDED, PROVIDED_P3};

/// What a component of WASI 0.2 exports to answer requests.
pub(super) const INCOMING_HANDLER: &str = "wasi:http/incoming-handler";
/// What a command exports, of both generations.
pub(super) const RUN: &str = "wasi:cli/run";

/// The packages of WASI 0.3.
const PACKAGES_P3: &[&str] =
    &["wasi:cli", "wasi:clocks", "wasi:filesystem", "wasi:http", "wasi:random", "wasi:sockets"];

/// A name without its version.
pub(super) fn interface(name: &str) -> &str {
    name.split_once('@').map_or(name, |(interface, _)| interface)
}

/// Whether `name` is `interface` in a version that the linker takes for `track` (`0.2`): a release of it, whatever its patch.
/// Pre-releases are compatible with nothing but themselves.
pub(super) fn is_of(name: &str, interface: &str, track: &str) -> bool {
    let Some((named, version)) = name.split_once('@') else { return false };
    let is_number = |part: &str| part.parse::<u64>().is_ok_and(|number| number.to_string() == part);
    named == interface
        && version
            .strip_prefix(track)
            .and_then(|rest| rest.strip_prefix('.'))
            .is_some_and(|rest| is_number(rest.split_once('+').map_or(rest, |(patch, _build)| patch)))
}

/// Whether a name is one of a package of WASI 0.3, in a release of it.
pub(super) fn is_of_p3(name: &str) -> bool {
    is_package_p3(name) && is_of(name, interface(name), "0.3")
}

/// Whether a name is one of a package of WASI 0.3, in a version that came before its releases.
pub(super) fn is_of_pre_p3(name: &str) -> bool {
    let version = name.split_once('@').map_or("", |(_, version)| version);
    is_package_p3(name) && version.starts_with("0.3.") && pre_release(version).is_some()
}

fn is_package_p3(name: &str) -> bool {
    name.split_once('/').is_some_and(|(package, _)| PACKAGES_P3.contains(&package))
}

/// What makes a version a pre-release: `rc-2023-10-18`.
fn pre_release(version: &str) -> Option<&str> {
    let release = version.split_once('+').map_or(version, |(release, _build)| release);
    release.split_once('-').map(|(_, tag)| tag)
}

/// Why an interface that is provided is not provided in the version that `name` has.
pub(super) fn other_version(name: &str) -> Option<String> {
    let found = interface(name);
    let is_p2 = PROVIDED.contains(&found) || found == INCOMING_HANDLER || found == RUN;
    let is_p3 = PROVIDED_P3.contains(&found) || found == HANDLER || found == RUN;
    let releases = match (is_p2, is_p3) {
        (true, true) => "0.2 and 0.3",
        (true, false) => "0.2",
        (false, true) => "0.3",
        (false, false) => return None,
    };
    let Some((_, version)) = name.split_once('@') else {
        return Some(format!("`{name}` has no version; wasgi knows it as released in WASI {releases}"));
    };
    Some(match pre_release(version) {
        Some(tag) => format!(
            "wasgi knows `{found}` as released in WASI {releases}; `{version}` is a pre-release ({tag}), which is compatible with \
             nothing else: build the component with a toolchain that emits a release"
        ),
        None => format!("wasgi knows `{found}` as released in WASI {releases}, not {version}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_by_their_version() {
        for version in ["0.2.0", "0.2.3", "0.2.12", "0.2.1+build.5"] {
            assert!(is_of(&format!("a:b/c@{version}"), "a:b/c", "0.2"), "{version}");
        }
        for version in
            ["0.2", "0.21.0", "0.2.0-rc-2023-10-18", "0.2.1-pre+b", "0.2.01", "0.2.+1", "0.2.", "0.3.0", "1.0.0"]
        {
            assert!(!is_of(&format!("a:b/c@{version}"), "a:b/c", "0.2"), "{version}");
        }
        assert!(!is_of("a:b/c", "a:b/c", "0.2"));
        assert!(!is_of("a:b/d@0.2.0", "a:b/c", "0.2"));
    }
}
