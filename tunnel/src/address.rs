//! A relay's address as people type it: `relay.example.com`, `relay.example.com:8443`,
//! `192.0.2.7:443`, `[2001:db8::7]:443`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use rustls_pki_types::ServerName;

/// Where a relay listens unless told otherwise, for QUIC (UDP) and HTTPS (TCP) alike.
pub const DEFAULT_PORT: u16 = 443;

/// A relay's host and port. HTTPS and QUIC are at the same one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayAddress {
    host: String,
    port: u16,
}

/// The text is not a relay's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a relay's address; write HOST or HOST:PORT, for example relay.example.com")]
pub struct BadAddress(String);

/// The host has no address.
#[derive(Debug, thiserror::Error)]
#[error("cannot find the relay \"{host}\": {cause}")]
pub struct NotFound {
    host: String,
    cause: String,
}

impl RelayAddress {
    /// The host, without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The name its certificate must carry.
    ///
    /// # Errors
    /// When the host cannot stand in a certificate.
    pub fn server_name(&self) -> Result<ServerName<'static>, BadAddress> {
        ServerName::try_from(self.host.clone()).map_err(|_| BadAddress(self.to_string()))
    }

    /// Its socket addresses, in the resolver's order of preference. An IP address is not looked up.
    ///
    /// # Errors
    /// When there is none.
    pub async fn resolve(&self) -> Result<Vec<SocketAddr>, NotFound> {
        if let Ok(ip) = self.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, self.port)]);
        }
        let not_found = |cause: String| NotFound { host: self.host.clone(), cause };
        let found: Vec<_> = tokio::net::lookup_host((self.host.as_str(), self.port))
            .await
            .map_err(|e| not_found(e.to_string()))?
            .collect();
        if found.is_empty() { Err(not_found("it has no address".into())) } else { Ok(found) }
    }
}

impl FromStr for RelayAddress {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let bad = || BadAddress(text.to_owned());
        let port_of = |digits: &str| match digits.parse::<u16>() {
            Ok(port) if port != 0 => Ok(port),
            _ => Err(bad()),
        };
        let text_trimmed = text.trim();
        if let Some(rest) = text_trimmed.strip_prefix('[') {
            let (inside, after) = rest.split_once(']').ok_or_else(bad)?;
            let ip: Ipv6Addr = inside.parse().map_err(|_| bad())?;
            let port = match after.strip_prefix(':') {
                Some(digits) => port_of(digits)?,
                None if after.is_empty() => DEFAULT_PORT,
                None => return Err(bad()),
            };
            return Ok(Self { host: ip.to_string(), port });
        }
        if let Ok(ip) = text_trimmed.parse::<Ipv6Addr>() {
            return Ok(Self { host: ip.to_string(), port: DEFAULT_PORT });
        }
        let (host, port) = match text_trimmed.split_once(':') {
            Some((host, digits)) => (host, port_of(digits)?),
            None => (text_trimmed, DEFAULT_PORT),
        };
        let host = host.to_ascii_lowercase();
        if host.is_empty() || ServerName::try_from(host.as_str()).is_err() {
            return Err(bad());
        }
        Ok(Self { host, port })
    }
}

impl fmt::Display for RelayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn read(text: &str) -> String {
        text.parse::<RelayAddress>().unwrap().to_string()
    }

    #[test]
    fn an_address_reads_in_every_form_people_write() {
        assert_eq!(read("relay.example.com"), "relay.example.com:443");
        assert_eq!(read("Relay.Example.com:8443"), "relay.example.com:8443");
        assert_eq!(read("192.0.2.7:1"), "192.0.2.7:1");
        assert_eq!(read("[2001:db8::7]:8443"), "[2001:db8::7]:8443");
        assert_eq!(read("[2001:db8::7]"), "[2001:db8::7]:443");
        assert_eq!(read("2001:db8::7"), "[2001:db8::7]:443");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in ["", ":443", "a b", "relay:0", "relay:70000", "relay:x", "[::1", "[::1]x", "-"] {
            assert!(bad.parse::<RelayAddress>().is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn an_ip_address_is_not_looked_up() {
        let address: RelayAddress = "[::1]:9".parse().unwrap();
        assert_eq!(address.resolve().await.unwrap(), ["[::1]:9".parse().unwrap()]);
    }
}
