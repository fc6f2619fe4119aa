//! Requests to a relay: what one connection carries, and what is asked again when it breaks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use belay_tunnel::https::{Https, HttpsError};
use hyper::Method;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::carriers::rig::Trust;

/// What becomes of a request that was read.
#[derive(Debug, Clone, Copy)]
enum Act {
    Answer,
    AnswerLast,
    /// Nothing is said, and the connection ends.
    Hear,
}

const WELL: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const LAST: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";

/// A relay that does to the requests of each connection what a script says, and then ends it.
struct Scripted {
    https: Https,
    /// The number of the connection, and the request's method.
    heard: mpsc::UnboundedReceiver<(usize, String)>,
    serving: JoinHandle<()>,
}

impl Scripted {
    async fn new(script: &'static [&'static [Act]]) -> Self {
        let trust = Trust::new();
        let acceptor = TlsAcceptor::from(Arc::new(trust.server(b"http/1.1")));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let (hear, heard) = mpsc::unbounded_channel();
        let serving = tokio::spawn(async move {
            for (number, acts) in script.iter().enumerate() {
                let (tcp, _) = listener.accept().await.unwrap();
                connection(tcp, &acceptor, acts, |method| {
                    hear.send((number, method)).unwrap();
                })
                .await;
            }
        });
        let relay = address.to_string().parse().unwrap();
        let https = Https::new(relay, Arc::new(trust.client()), "test/1");
        Self { https, heard, serving }
    }

    async fn ask(&self, method: Method) -> Result<String, HttpsError> {
        let answer = self.https.exchange(method, "/v1/whoami", b"{}".to_vec()).await?;
        assert_eq!(answer.status, 200);
        Ok(String::from_utf8(answer.body.to_vec()).unwrap())
    }

    /// Which connection each request was heard on, once the whole script was played.
    async fn heard(mut self) -> Vec<(usize, String)> {
        tokio::time::timeout(Duration::from_secs(20), &mut self.serving).await.unwrap().unwrap();
        let mut all = Vec::new();
        while let Some(one) = self.heard.recv().await {
            all.push(one);
        }
        all
    }
}

async fn connection(tcp: TcpStream, acceptor: &TlsAcceptor, acts: &[Act], hear: impl Fn(String)) {
    let mut stream = BufReader::new(acceptor.accept(tcp).await.unwrap());
    for act in acts {
        let (mut method, mut line) = (String::new(), String::new());
        while stream.read_line(&mut line).await.unwrap() > 2 {
            if method.is_empty() {
                method = line.split(' ').next().unwrap().to_owned();
            }
            line.clear();
        }
        let mut body = [0; 2];
        stream.read_exact(&mut body).await.unwrap();
        hear(method);
        let answer = match act {
            Act::Answer => WELL,
            Act::AnswerLast => LAST,
            Act::Hear => return,
        };
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
    }
    stream.shutdown().await.unwrap();
}

fn heard(all: &[(usize, &str)]) -> Vec<(usize, String)> {
    all.iter().map(|(number, method)| (*number, (*method).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_carries_request_after_request() {
    let relay =
        Scripted::new(&[&[Act::Answer, Act::Answer, Act::AnswerLast], &[Act::Answer]]).await;
    for method in [Method::GET, Method::POST, Method::GET, Method::POST] {
        assert_eq!(relay.ask(method).await.unwrap(), "ok");
    }
    let expected = heard(&[(0, "GET"), (0, "POST"), (0, "GET"), (1, "POST")]);
    assert_eq!(relay.heard().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_has_ended_meanwhile_is_seen_before_anything_is_sent() {
    let relay = Scripted::new(&[&[Act::Answer], &[Act::Answer]]).await;
    relay.ask(Method::GET).await.unwrap();
    // The end of the first, after its answer.
    tokio::time::sleep(Duration::from_millis(300)).await;
    relay.ask(Method::POST).await.unwrap();
    assert_eq!(relay.heard().await, heard(&[(0, "GET"), (1, "POST")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_reads_is_asked_again_and_what_acts_is_not() {
    let relay = Scripted::new(&[&[Act::Answer, Act::Hear], &[Act::Answer, Act::Hear]]).await;
    relay.ask(Method::GET).await.unwrap();
    assert_eq!(relay.ask(Method::GET).await.unwrap(), "ok");
    let error = relay.ask(Method::DELETE).await.unwrap_err();
    assert_eq!(error.token, "relay-lost", "{error}");
    let expected = heard(&[(0, "GET"), (0, "GET"), (1, "GET"), (1, "DELETE")]);
    assert_eq!(relay.heard().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_connection_that_breaks_is_told_of_at_once() {
    let relay = Scripted::new(&[&[Act::Hear]]).await;
    let error = relay.ask(Method::GET).await.unwrap_err();
    assert_eq!(error.token, "relay-lost", "{error}");
    assert_eq!(relay.heard().await, heard(&[(0, "GET")]));
}
