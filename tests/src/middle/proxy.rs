//! A proxy: HTTP CONNECT or SOCKS 5, with or without a login.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail, ensure};

use super::{Listener, pass};
use crate::world::{RELAY, World};

/// What it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP CONNECT.
    Http,
    /// SOCKS 5, names resolved here.
    Socks5,
}

/// The one login it knows: `hugo` and `geheim`.
const BASIC: &str = "Basic aHVnbzpnZWhlaW0=";

/// A running proxy. It connects to the relay, and to nothing else.
#[derive(Debug)]
pub struct Proxy {
    speaks: Speaks,
    address: SocketAddr,
    passed: Arc<AtomicU32>,
    _listener: Listener,
}

#[derive(Clone)]
struct Server {
    speaks: Speaks,
    wants_login: bool,
    relay: SocketAddr,
    passed: Arc<AtomicU32>,
}

impl Proxy {
    /// Starts one on the lab's `internet`, where both sides reach it and it reaches the relay
    /// whatever is cut between them.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(world: &World, speaks: Speaks, wants_login: bool, port: u16) -> Result<Self> {
        let address = (world.lab.address("internet"), port).into();
        let relay = (world.lab.address("relay"), 443).into();
        let passed = Arc::new(AtomicU32::new(0));
        let server = Server { speaks, wants_login, relay, passed: Arc::clone(&passed) };
        let listener = Listener::start(world.lab.ns("internet"), address, move |socket| {
            // What matters of a refusal is what the refused one says.
            drop(server.serve(socket));
        })?;
        Ok(Self { speaks, address, passed, _listener: listener })
    }

    /// What to put into `HTTPS_PROXY`; `login` is `USER:PASSWORD@` or nothing.
    #[must_use]
    pub fn url(&self, login: &str) -> String {
        let scheme = match self.speaks {
            Speaks::Http => "http",
            Speaks::Socks5 => "socks5",
        };
        format!("{scheme}://{login}{}", self.address)
    }

    /// Connections let through so far.
    #[must_use]
    pub fn passed(&self) -> u32 {
        self.passed.load(Ordering::Relaxed)
    }
}

impl Server {
    fn serve(&self, client: TcpStream) -> Result<()> {
        match self.speaks {
            Speaks::Http => self.http(client),
            Speaks::Socks5 => self.socks(client),
        }
    }

    fn http(&self, mut client: TcpStream) -> Result<()> {
        // The client says nothing after its head before it is answered.
        let mut reader = BufReader::new(client.try_clone()?);
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            head.push(line.trim().to_owned());
        }
        let login = format!("Proxy-Authorization: {BASIC}");
        if self.wants_login && !head.contains(&login) {
            let no = "HTTP/1.1 407 Proxy Authentication Required\r\n\
                      Proxy-Authenticate: Basic realm=\"lab\"\r\n\r\n";
            client.write_all(no.as_bytes())?;
            bail!("no such login");
        }
        let first = head.first().context("no request")?;
        ensure!(*first == format!("CONNECT {RELAY} HTTP/1.1"), "asked for {first}");
        let relay = TcpStream::connect(self.relay)?;
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        self.passed.fetch_add(1, Ordering::Relaxed);
        pass(&client, &relay);
        Ok(())
    }

    fn socks(&self, mut client: TcpStream) -> Result<()> {
        let mut byte = [0];
        let mut next = |client: &mut TcpStream| -> Result<u8> {
            client.read_exact(&mut byte)?;
            Ok(byte[0])
        };
        ensure!(next(&mut client)? == 5, "not SOCKS 5");
        let mut methods = vec![0; usize::from(next(&mut client)?)];
        client.read_exact(&mut methods)?;
        if self.wants_login {
            if !methods.contains(&2) {
                client.write_all(&[5, 0xff])?;
                bail!("no login offered");
            }
            client.write_all(&[5, 2])?;
            ensure!(next(&mut client)? == 1, "not the login's version");
            let mut login = Vec::new();
            for _ in 0..2 {
                let mut text = vec![0; usize::from(next(&mut client)?)];
                client.read_exact(&mut text)?;
                login.push(text);
            }
            if login != [b"hugo".to_vec(), b"geheim".to_vec()] {
                client.write_all(&[1, 1])?;
                bail!("no such login");
            }
            client.write_all(&[1, 0])?;
        } else {
            client.write_all(&[5, 0])?;
        }
        let mut head = [0; 4];
        client.read_exact(&mut head)?;
        ensure!(head == [5, 1, 0, 3], "not CONNECT to a name: {head:?}");
        let mut name = vec![0; usize::from(next(&mut client)?)];
        client.read_exact(&mut name)?;
        let mut port = [0; 2];
        client.read_exact(&mut port)?;
        let target = format!("{}:{}", String::from_utf8(name)?, u16::from_be_bytes(port));
        ensure!(target == RELAY, "asked for {target}");
        let relay = TcpStream::connect(self.relay)?;
        client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
        self.passed.fetch_add(1, Ordering::Relaxed);
        pass(&client, &relay);
        Ok(())
    }
}
