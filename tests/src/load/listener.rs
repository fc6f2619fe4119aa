//! A server on the device that sends back what it gets.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Result;

use crate::world::World;

/// Runs until dropped.
pub(super) struct EchoServer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl EchoServer {
    /// Where it listens, on the device's loopback.
    pub(super) const PORT: u16 = 7070;

    pub(super) fn start(world: &World) -> Result<Self> {
        let listener =
            world.lab.ns("device").run(|| TcpListener::bind(("127.0.0.1", Self::PORT)))??;
        listener.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                while !stop.load(Ordering::Relaxed) {
                    match listener.accept() {
                        Ok((socket, _)) => drop(thread::spawn(move || echo(socket))),
                        Err(_) => thread::sleep(Duration::from_millis(10)),
                    }
                }
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            crate::lab::loud("the echo server panicked");
        }
    }
}

fn echo(mut socket: TcpStream) {
    let mut buffer = [0; 4096];
    // A peer that goes away ends it, as it should.
    while let Ok(count @ 1..) = socket.read(&mut buffer) {
        let Some(got) = buffer.get(..count) else { return };
        if socket.write_all(got).is_err() {
            return;
        }
    }
}
