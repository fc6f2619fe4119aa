//! The way to the relay: TCP, through the environment's proxy if there is one, and TLS.

use std::sync::Arc;
use std::time::Duration;

use belay_proto::error_line::one_line;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::HttpsError;
use super::judge::tls_failure;
use crate::address::RelayAddress;
use crate::proxy::{Proxies, Proxy, ProxyError};

/// One address's TCP handshake. Three lost SYNs cost 7 s.
const CONNECT_WITHIN: Duration = Duration::from_secs(8);

/// The TLS handshake: two round trips and their losses.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// Connects and finishes the TLS handshake.
pub(super) async fn connect_tls(
    relay: &RelayAddress,
    proxies: &Proxies,
    tls: &Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, HttpsError> {
    let name = relay.server_name().map_err(|e| HttpsError::new("address", e.to_string()))?;
    let tcp = connect_tcp(relay, proxies).await?;
    tcp.set_nodelay(true).map_err(|e| HttpsError::new("network", e.to_string()))?;
    let handshake = TlsConnector::from(Arc::clone(tls)).connect(name, tcp);
    match timeout(HANDSHAKE_WITHIN, handshake).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(tls_failure(relay, &error)),
        Err(_) => Err(HttpsError::new(
            "relay-silent",
            format!("{relay} took the connection but did not finish the TLS handshake"),
        )
        .remedy("check that the address is a Belay relay's")),
    }
}

async fn connect_tcp(relay: &RelayAddress, proxies: &Proxies) -> Result<TcpStream, HttpsError> {
    if let Some(proxy) = proxies.towards(relay.host()) {
        let through = proxy.connect(relay.host(), relay.port()).await;
        return through.map_err(|error| through_proxy(proxy, &error));
    }
    let addresses = relay.resolve().await.map_err(|e| {
        HttpsError::new("relay-not-found", e.to_string())
            .remedy("check the name, and this machine's network and DNS")
    })?;
    let mut last = String::new();
    for address in addresses {
        match timeout(CONNECT_WITHIN, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(error)) => last = format!("{address}: {error}"),
            Err(_) => last = format!("{address}: no answer within {} s", CONNECT_WITHIN.as_secs()),
        }
    }
    Err(HttpsError::new("relay-unreachable", format!("cannot reach the relay ({last})"))
        .remedy("check the address, this machine's network, and that the relay runs"))
}

/// The same words as the picker's, which goes the same way ([`crate::carrier::picker`]).
fn through_proxy(proxy: &Proxy, error: &ProxyError) -> HttpsError {
    let why = one_line(error);
    if matches!(error, ProxyError::Login(_)) {
        return HttpsError::new("proxy-login", format!("{why} ({proxy})"))
            .remedy(crate::proxy::LOGIN_REMEDY);
    }
    HttpsError::new("proxy", format!("no way through the proxy {proxy}: {why}"))
        .remedy(crate::proxy::REMEDY)
}
