//! The address this machine would use towards a peer, asked of the kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The local address the kernel chooses towards a peer; none when there is no route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route(Option<IpAddr>);

impl Route {
    /// Asks the kernel. Connecting a UDP socket (connect(2)) sends nothing.
    pub fn towards(peer: SocketAddr) -> Self {
        let any: IpAddr = if peer.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let chosen = UdpSocket::bind((any, 0)).and_then(|socket| {
            socket.connect(peer)?;
            socket.local_addr()
        });
        Self(chosen.ok().map(|address| address.ip()))
    }

    /// The address.
    pub const fn address(self) -> Option<IpAddr> {
        self.0
    }

    /// Whether there is any.
    pub const fn exists(self) -> bool {
        self.0.is_some()
    }
}

/// A route that is looked at now and then.
#[derive(Debug)]
pub struct WatchedRoute {
    peer: SocketAddr,
    last: Route,
    due: Instant,
}

impl WatchedRoute {
    /// The route as it is now.
    pub fn new(peer: SocketAddr) -> Self {
        Self { peer, last: Route::towards(peer), due: Instant::now() }
    }

    /// Waits until the route is another than before, and there is one. Looks every `period`. Safe
    /// to cancel: it goes on where it was.
    pub async fn changed(&mut self, period: Duration) {
        loop {
            sleep_until(self.due).await;
            self.due = Instant::now() + period;
            let now = Route::towards(self.peer);
            if now != self.last {
                self.last = now;
                if now.exists() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_reached_from_loopback() {
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
        assert_eq!(Route::towards(peer), Route(Some(Ipv4Addr::LOCALHOST.into())));
        assert!(Route::towards(peer).exists());
    }
}
