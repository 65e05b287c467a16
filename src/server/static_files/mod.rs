//! Files of a folder, as they are: GET and HEAD, conditions and ranges (RFC 9110, 13 and 14), and no way out of the folder.

pub mod body;
mod conditions;
mod folder;
mod media_types;
pub mod service;
