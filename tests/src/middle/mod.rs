//! What stands between people and their relay: proxies, and somebody who opens TLS.
//!
//! Each runs on threads of the test process in a node of the lab, until it is dropped.

mod interceptor;
mod proxy;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Result;

use crate::lab::Netns;

pub use interceptor::{ISSUER, Interceptor};
pub use proxy::{Proxy, Speaks};

/// How often a listener looks whether it is to end.
const LOOK: Duration = Duration::from_millis(10);

/// Accepts until dropped, each connection on a thread of its own.
#[derive(Debug)]
struct Listener {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// In a namespace: its threads, and so all they dial, belong to it.
    fn start(
        ns: &Netns,
        address: SocketAddr,
        serve: impl Fn(TcpStream) + Clone + Send + 'static,
    ) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = ns.run(|| -> std::io::Result<_> {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let stop = Arc::clone(&stop);
            Ok(thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    match listener.accept() {
                        Ok((socket, _)) => {
                            let serve = serve.clone();
                            drop(thread::spawn(move || {
                                if socket.set_nonblocking(false).is_ok() {
                                    serve(socket);
                                }
                            }));
                        }
                        Err(_) => thread::sleep(LOOK),
                    }
                }
            }))
        })??;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            crate::lab::loud("a listener of the test panicked");
        }
    }
}

/// Passes bytes both ways until both have ended.
fn pass(one: &TcpStream, other: &TcpStream) {
    let way = |from: &TcpStream, to: &TcpStream| {
        let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else { return };
        // One that breaks ends the other as well.
        drop(std::io::copy(&mut from, &mut to));
        drop(to.shutdown(std::net::Shutdown::Write));
    };
    thread::scope(|scope| {
        scope.spawn(|| way(other, one));
        way(one, other);
    });
}
