//! stub
pub struct Addresses {
    pub source: std::net::SocketAddr,
    pub destination: std::net::SocketAddr,
}
pub async fn read<S>(_: &mut S) -> Result<Option<Addresses>, String> {
    Ok(None)
}
