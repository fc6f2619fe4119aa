//! Where a forward may go: names are resolved once, and what was resolved is
//! what is judged and what is dialled.
//!
//! Until grants carry targets of their own, everything the device reaches is
//! allowed but what would go around Belay or reach the machinery beneath it:
//! the device's own sshd, link-local and cloud metadata addresses, and
//! addresses that are no single host.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::timeout;

use crate::worker::limits::DIAL_TIMEOUT;

/// The agent's own sockets live here; whoever reaches them is the agent.
const OWN_SOCKETS: [&str; 2] = ["/run/belay", "/var/run/belay"];

const SSH_PORT: u16 = 22;

/// Addresses of cloud metadata services outside the link-local ranges.
const METADATA: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Addresses tried for one name.
const ADDRESSES_MAX: usize = 8;

#[derive(Debug, Error)]
pub(super) enum TargetError {
    #[error("forwarding to {0} is not allowed: {1}")]
    Forbidden(String, &'static str),
    #[error("{0} cannot be resolved on the device: {1}")]
    Resolve(String, io::Error),
    #[error("{0} cannot be reached from the device: {1}")]
    Connect(String, io::Error),
}

/// Resolves, judges and connects.
pub(super) async fn tcp(host: &str, port: u32) -> Result<OwnedFd, TargetError> {
    let name = format!("{}:{port}", super::shown(host));
    let failed = |error| TargetError::Connect(name.clone(), error);
    let port = u16::try_from(port)
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| TargetError::Forbidden(name.clone(), "that is no port"))?;
    let dial = async {
        let addresses: Vec<SocketAddr> = lookup_host((host, port))
            .await
            .map_err(|error| TargetError::Resolve(name.clone(), error))?
            .take(ADDRESSES_MAX)
            .collect();
        let mut last = TargetError::Resolve(name.clone(), io::ErrorKind::NotFound.into());
        for address in addresses {
            if let Err(why) = judge(address.ip(), port, is_local) {
                last = TargetError::Forbidden(name.clone(), why);
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(stream) => return plain(stream).map_err(failed),
                Err(error) => last = failed(error),
            }
        }
        Err(last)
    };
    timeout(DIAL_TIMEOUT, dial)
        .await
        .unwrap_or_else(|_| Err(failed(io::ErrorKind::TimedOut.into())))
}

fn plain(stream: TcpStream) -> io::Result<OwnedFd> {
    stream.set_nodelay(true)?;
    // Stays non-blocking.
    Ok(stream.into_std()?.into())
}

/// A Unix socket of the device; the kernel decides whether the login user may.
pub(super) async fn socket(path: &str) -> Result<OwnedFd, TargetError> {
    let name = super::shown(path);
    let failed = |error| TargetError::Connect(name.clone(), error);
    if !path.starts_with('/') || path.contains('\0') {
        return Err(TargetError::Forbidden(name, "a socket is named by its whole path"));
    }
    let real: PathBuf = std::fs::canonicalize(path).map_err(failed)?;
    if is_own(&real) {
        return Err(TargetError::Forbidden(name, "it is the agent's own"));
    }
    let dial = timeout(DIAL_TIMEOUT, UnixStream::connect(&real)).await;
    let stream = dial.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(failed)?;
    Ok(stream.into_std().map_err(failed)?.into())
}

fn is_own(path: &Path) -> bool {
    // Both `/run/belay` and `/run/belay-agent`.
    let text = path.to_string_lossy();
    OWN_SOCKETS.iter().any(|own| text.starts_with(own))
}

/// Whether a resolved address may be dialled.
fn judge(address: IpAddr, port: u16, local: impl Fn(IpAddr) -> bool) -> Result<(), &'static str> {
    let address = embedded(address);
    if METADATA.contains(&address) {
        return Err("it is a metadata service");
    }
    match address {
        IpAddr::V4(v4) => {
            if v4.octets().first() == Some(&0) {
                return Err("it is no address of a host");
            }
            if v4.is_link_local() {
                return Err("it is link-local, where metadata services are");
            }
            if v4.is_multicast() || v4.is_broadcast() {
                return Err("it is no single host");
            }
        }
        IpAddr::V6(v6) => {
            if v6.is_unspecified() {
                return Err("it is no address of a host");
            }
            if v6.is_unicast_link_local() {
                return Err("it is link-local, where metadata services are");
            }
            if v6.is_multicast() {
                return Err("it is no single host");
            }
        }
    }
    if port == SSH_PORT && (address.is_loopback() || local(address)) {
        return Err(
            "the device's own SSH server would go around Belay: connect to the device itself",
        );
    }
    Ok(())
}

/// The IPv4 address an IPv6 one stands for: mapped (RFC 4291), compatible, or
/// translated by the well-known prefix (RFC 6052).
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let octets = v6.octets();
    let (prefix, tail) = octets.split_at(12);
    let v4 = <[u8; 4]>::try_from(tail).map(|tail| IpAddr::V4(tail.into()));
    const NAT64: [u8; 12] = [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0];
    const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    let compatible = prefix == [0; 12] && !v6.is_unspecified() && !v6.is_loopback();
    match v4 {
        Ok(v4) if prefix == NAT64 || prefix == MAPPED || compatible => v4,
        Ok(_) | Err(_) => address,
    }
}

/// Only an address of our own can be bound.
fn is_local(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    fn allowed(address: &str, port: u16) -> bool {
        let ours: IpAddr = "192.0.2.1".parse().unwrap();
        judge(address.parse().unwrap(), port, |address| address == ours).is_ok()
    }

    #[test]
    fn the_devices_network_is_allowed() {
        for address in [
            "127.0.0.1",
            "10.0.0.1",
            "192.168.1.1",
            "198.51.100.1",
            "::1",
            "fd00::1",
            "2001:db8::1",
        ] {
            assert!(allowed(address, 80), "{address}");
        }
        assert!(allowed("192.0.2.2", 22), "another host's sshd");
    }

    #[test]
    fn what_is_no_host_or_beneath_the_device_is_refused() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "100.100.100.200",
            "::",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::169.254.169.254",
            "::ffff:0.0.0.0",
        ] {
            assert!(!allowed(address, 80), "{address}");
        }
    }

    #[test]
    fn the_devices_own_sshd_is_refused_on_every_address() {
        for address in
            ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "192.0.2.1", "::ffff:192.0.2.1"]
        {
            assert!(!allowed(address, 22), "{address}");
            assert!(allowed(address, 2222), "{address}");
        }
    }

    #[test]
    fn our_own_addresses_are_known() {
        assert!(is_local("127.0.0.1".parse().unwrap()));
        assert!(!is_local("198.51.100.7".parse().unwrap()));
    }

    #[tokio::test]
    async fn the_agents_own_sockets_are_refused() {
        assert!(
            is_own(Path::new("/run/belay/agent.sock")) && is_own(Path::new("/run/belay-agent/x"))
        );
        assert!(!is_own(Path::new("/run/docker.sock")));
        assert!(matches!(socket("relative").await, Err(TargetError::Forbidden(..))));
    }
}
