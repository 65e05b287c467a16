//! Options of Python's classes of settings. A table has each option once: its name, type, default and check.

use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::py::values::{Count, Number, Seconds};

/// The type of an option, as its class keeps it.
pub(crate) trait Setting: Sized {
    /// The type of the argument.
    type Given<'py>;

    fn given(name: &str, given: Self::Given<'_>) -> PyResult<Self>;
}

macro_rules! kept_into_given {
    ($($kept:ty, $given:ty, $pattern:pat => $value:expr;)*) => {
        $(impl Setting for $kept {
            type Given<'py> = $given;

            fn given(_: &str, $pattern: Self::Given<'_>) -> PyResult<Self> {
                Ok($value)
            }
        })*
    };
}

kept_into_given! {
    bool, bool, given => given;
    i64, Count, Number(given) => given;
    u64, Number<u64>, Number(given) => given;
    f64, Seconds, Number(given) => given;
    Option<i64>, Option<Count>, given => given.map(|Number(given)| given);
    Option<f64>, Option<Seconds>, given => given.map(|Number(given)| given);
    Option<String>, Option<String>, given => given;
}

/// A default, which a table has as Python would write it, as an argument.
pub(crate) trait IntoGiven<Given> {
    fn into_given(self) -> Given;
}

impl IntoGiven<bool> for bool {
    fn into_given(self) -> bool {
        self
    }
}

impl<T> IntoGiven<Number<T>> for T {
    fn into_given(self) -> Number<T> {
        Number(self)
    }
}

impl<T> IntoGiven<Option<Number<T>>> for T {
    fn into_given(self) -> Option<Number<T>> {
        Some(Number(self))
    }
}

/// How the core has an option that was checked.
pub(crate) trait ToCore<Core> {
    fn to_core(self) -> Core;
}

impl ToCore<usize> for i64 {
    fn to_core(self) -> usize {
        usize::try_from(self).unwrap_or(usize::MAX)
    }
}

impl ToCore<u32> for i64 {
    fn to_core(self) -> u32 {
        u32::try_from(self).unwrap_or(u32::MAX)
    }
}

impl ToCore<Duration> for f64 {
    fn to_core(self) -> Duration {
        Duration::try_from_secs_f64(self).unwrap_or_default()
    }
}

impl ToCore<Option<usize>> for Option<i64> {
    fn to_core(self) -> Option<usize> {
        self.map(ToCore::to_core)
    }
}

impl ToCore<Option<u64>> for Option<i64> {
    fn to_core(self) -> Option<u64> {
        self.and_then(|value| u64::try_from(value).ok())
    }
}

impl ToCore<Option<Duration>> for Option<f64> {
    fn to_core(self) -> Option<Duration> {
        self.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    }
}

// Checks of one option. What they refuse is a `ValueError`.

/// Zero would leave nothing to run.
pub(crate) fn positive(name: &str, value: impl Into<Option<i64>>, unit: &str) -> PyResult<()> {
    match value.into() {
        Some(value) if value < 1 => {
            Err(PyValueError::new_err(format!("`{name}` must be a positive number of {unit}, or None: {value}")))
        }
        _ => Ok(()),
    }
}

pub(crate) fn not_negative(name: &str, value: impl Into<Option<i64>>, unit: &str) -> PyResult<()> {
    match value.into() {
        Some(value) if value < 0 => {
            Err(PyValueError::new_err(format!("`{name}` must be a number of {unit}, zero or more: {value}")))
        }
        _ => Ok(()),
    }
}

pub(crate) fn within(name: &str, value: impl Into<Option<i64>>, least: i64, most: i64) -> PyResult<()> {
    match value.into() {
        Some(value) if !(least..=most).contains(&value) => {
            Err(PyValueError::new_err(format!("`{name}` must be from {least} to {most}: {value}")))
        }
        _ => Ok(()),
    }
}

/// Some thirty years: what is added to an instant must give an instant.
pub(crate) const LONGEST: Duration = Duration::from_secs(1_000_000_000);

pub(crate) fn seconds(name: &str, value: impl Into<Option<f64>>) -> PyResult<()> {
    match value.into() {
        Some(seconds) if seconds > LONGEST.as_secs_f64() => Err(PyValueError::new_err(format!(
            "`{name}` must be at most {} seconds, or None: {seconds}",
            LONGEST.as_secs()
        ))),
        Some(seconds) if seconds.is_nan() || seconds <= 0.0 => {
            Err(PyValueError::new_err(format!("`{name}` must be a positive number of seconds, or None: {seconds}")))
        }
        _ => Ok(()),
    }
}

/// A class of settings from the table of its options:
///
/// ```text
/// options! {
///     #[pyclass(name = "Limits", module = "wasgi")]
///     pub struct PyLimits as "Limits" -> Limits {
///         memory: Option<i64> = 268435456 => positive("bytes"),
///         fuel: Option<i64> = None,
///     }
/// }
/// ```
///
/// A default is one token, written as Rust and Python both write it (`true` and `false` aside): the signature that `help` shows has
/// it, too. An option before the others, in brackets, is positional and has none. `as` gives the name in a repr, `->` the core's type
/// with fields of the same names.
///
/// It makes the struct, `__new__`, `core` (where there is a `->`), and the methods of a value. The class adds `made`: what needs
/// several options at once. `of NetworkOptions` keeps the options in a struct of their own, beside what was made of them; then
/// further methods of the class follow.
macro_rules! options {
    (
        $(#[doc = $doc:tt])*
        #[pyclass($($pyclass:tt)*)]
        pub struct $class:ident as $shown:tt -> $core:ident $rows:tt
    ) => {
        $crate::py::options::options! { $(#[doc = $doc])* #[pyclass($($pyclass)*)] pub struct $class as $shown $rows }
        $crate::py::options::options! { @core $class $core $rows }
    };
    (
        $(#[doc = $doc:tt])*
        #[pyclass(name = $python:tt, $($pyclass:tt)*)]
        pub struct $class:ident as $shown:tt $rows:tt
    ) => {
        $crate::py::options::options! { @struct
            {
                #[doc = $crate::py::options::options!(@signature $python $rows)]
                $(#[doc = $doc])*
                #[pyo3::pyclass(name = $python, $($pyclass)*, frozen, eq, get_all)]
            }
            $class $rows
        }
        $crate::py::options::options! { @methods $class $class $shown $rows {} }
        $crate::py::options::options! { @settings $class $rows }
    };
    (
        $(#[doc = $doc:tt])*
        #[pyclass(name = $python:tt, $($pyclass:tt)*)]
        pub struct $class:ident { $($made:tt)* } as $shown:tt of $options:ident $rows:tt
        impl $own:tt
    ) => {
        #[doc = $crate::py::options::options!(@signature $python $rows)]
        $(#[doc = $doc])*
        #[pyo3::pyclass(name = $python, $($pyclass)*, frozen, eq)]
        pub struct $class {
            $($made)*
            options: $options,
        }
        $crate::py::options::options! { @struct {} $options $rows }
        $crate::py::options::options! { @methods $class $options $shown $rows $own }
        $crate::py::options::options! { @changed $options $rows }
        impl $class {
            fn settings<'py>(&self, py: pyo3::Python<'py>) -> pyo3::PyResult<pyo3::Bound<'py, pyo3::types::PyDict>> {
                self.options.settings(py)
            }
        }
    };

    (@struct { $($attribute:tt)* } $class:ident {
        $([$first:ident: $first_type:ty],)?
        $($name:ident: $type:ty = $default:tt $(=> $check:ident($($argument:expr),*))?,)*
    }) => {
        $($attribute)*
        #[derive(Clone, PartialEq)]
        pub(crate) struct $class {
            $($first: $first_type,)?
            $($name: $type,)*
        }
    };

    (@methods $class:ident $options:ident $shown:tt {
        $([$first:ident: $first_type:ty],)?
        $($name:ident: $type:ty = $default:tt $(=> $check:ident($($argument:expr),*))?,)*
    } { $($own:tt)* }) => {
        $crate::py::values::value_methods! {
            impl $class as $shown {
                // the class's docstring begins with the signature instead
                #[new]
                #[pyo3(
                    signature = ($($first,)? *, $($name = $crate::py::options::options!(@default $default)),*),
                    text_signature = None
                )]
                #[allow(clippy::too_many_arguments)]
                fn new(
                    $($first: <$first_type as $crate::py::options::Setting>::Given<'_>,)?
                    $($name: <$type as $crate::py::options::Setting>::Given<'_>,)*
                ) -> pyo3::PyResult<Self> {
                    use $crate::py::options::Setting;
                    let options = $options {
                        $($first: Setting::given(stringify!($first), $first)?,)?
                        $($name: Setting::given(stringify!($name), $name)?,)*
                    };
                    $($($check(stringify!($name), options.$name, $($argument),*)?;)?)*
                    Self::made(options)
                }

                $($own)*
            }
        }
    };

    // all of them, by name
    (@settings $class:ident {
        $($name:ident: $type:ty = $default:tt $(=> $check:ident($($argument:expr),*))?,)*
    }) => {
        impl $class {
            fn settings<'py>(&self, py: pyo3::Python<'py>) -> pyo3::PyResult<pyo3::Bound<'py, pyo3::types::PyDict>> {
                let settings = pyo3::types::PyDict::new(py);
                #[allow(clippy::clone_on_copy)]
                {
                    $(pyo3::types::PyDictMethods::set_item(&settings, stringify!($name), self.$name.clone())?;)*
                }
                Ok(settings)
            }
        }
    };

    // those that are not the default
    (@changed $options:ident {
        $([$first:ident: $first_type:ty],)?
        $($name:ident: $type:ty = $default:tt $(=> $check:ident($($argument:expr),*))?,)*
    }) => {
        impl $options {
            fn settings<'py>(&self, py: pyo3::Python<'py>) -> pyo3::PyResult<pyo3::Bound<'py, pyo3::types::PyDict>> {
                use pyo3::types::PyDictMethods;
                use $crate::py::options::Setting;
                let settings = pyo3::types::PyDict::new(py);
                $(settings.set_item(stringify!($first), self.$first.clone())?;)?
                $(
                    let default = <$type>::given(stringify!($name), $crate::py::options::options!(@default $default))?;
                    if self.$name != default {
                        settings.set_item(stringify!($name), self.$name.clone())?;
                    }
                )*
                Ok(settings)
            }
        }
    };

    (@core $class:ident $core:ident {
        $($name:ident: $type:ty = $default:tt $(=> $check:ident($($argument:expr),*))?,)*
    }) => {
        impl $class {
            pub(crate) fn core(&self) -> $core {
                $core { $($name: $crate::py::options::ToCore::to_core(self.$name),)* }
            }
        }
    };

    (@default None) => { None };
    (@default $value:tt) => { $crate::py::options::IntoGiven::into_given($value) };

    // The head of a docstring that CPython takes for its class's `__text_signature__`. pyo3's own `text_signature` takes a literal only.
    (@signature $python:tt {
        $([$first:ident: $first_type:ty],)?
        $($name:ident: $type:ty = $default:tt $(=> $check:ident($($argument:expr),*))?,)*
    }) => {
        concat!(
            $python, "(", $(stringify!($first), ", ",)? "*",
            $(", ", stringify!($name), "=", $crate::py::options::options!(@python $default),)*
            ")\n--\n"
        )
    };
    (@python true) => { "True" };
    (@python false) => { "False" };
    (@python $default:tt) => { stringify!($default) };
}

pub(super) use options;
