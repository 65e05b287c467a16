//! What HTTP's messages are made of, as data: fields, URLs, error-codes. Nothing here runs or waits.

pub mod canonical_url;
pub mod error_code;
pub mod fields;
pub(crate) mod message;
pub mod server_request;
pub mod upstream_response;
pub mod url;
pub mod url_pattern;
