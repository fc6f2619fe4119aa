//! Witnesses over HTTP: one of our own, strict about the format, that a relay has cosign its log.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use belay_proto::audit::{
    Checkpoint, Digest, VerifierKey, WitnessKey, cosigned_text, empty_root, verify_consistency,
};
use belay_proto::time::UnixTime;
use belay_relay::audit::cosigner::{self, Cosigner};
use belay_relay::config::Audit;
use belay_relay::outbound::Url;
use belay_relay::store::{Event, EventKind, Store};
use belay_tunnel::clock;
use belay_tunnel::pki::{NoteSigner, NoteVerifier};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::lines::soon;

/// A witness of one log.
#[derive(Clone)]
struct Witness {
    signer: Arc<NoteSigner>,
    key: WitnessKey,
    log: VerifierKey,
    /// What it has seen of the log.
    seen: Arc<Mutex<(u64, Digest)>>,
    /// What it was asked: the old size, and what it answered.
    asked: Arc<Mutex<Vec<(u64, u16)>>>,
    /// Signs with something else.
    liar: bool,
}

impl Witness {
    fn of(log: &VerifierKey, name: &str) -> Self {
        let signer = NoteSigner::from_pkcs8(&NoteSigner::generate().unwrap()).unwrap();
        let key = WitnessKey::new(name, signer.public_key().unwrap()).unwrap();
        let seen = Arc::new(Mutex::new((0, empty_root())));
        let (signer, asked) = (Arc::new(signer), Arc::default());
        Self { signer, key, log: log.clone(), seen, asked, liar: false }
    }

    async fn start(&self) -> cosigner::Witness {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/w/add-checkpoint", post(add)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let url = Url::parse(&format!("http://{address}/w/")).unwrap().below("add-checkpoint");
        cosigner::Witness { url, key: self.key.clone(), ca_file: None }
    }

    /// C2SP tlog-witness.
    fn add(&self, body: &str) -> Response {
        let (head, note) = body.split_once("\n\n").unwrap();
        let mut lines = head.lines();
        let old: u64 = lines.next().unwrap().strip_prefix("old ").unwrap().parse().unwrap();
        let proof: Vec<Digest> = lines.map(|line| line.parse().unwrap()).collect();
        assert!(proof.len() <= 63);
        let check = NoteVerifier::from(&self.log);
        let Ok(new) = Checkpoint::open(note, &self.log, &check) else {
            return StatusCode::FORBIDDEN.into_response();
        };
        let mut seen = self.seen.lock().unwrap();
        let (size, root) = *seen;
        if old > new.size {
            return StatusCode::BAD_REQUEST.into_response();
        }
        if old != size {
            let kind = [(CONTENT_TYPE, "text/x.tlog.size")];
            return (StatusCode::CONFLICT, kind, format!("{size}\n")).into_response();
        }
        if !verify_consistency(old, root, new.size, new.root, &proof) {
            return StatusCode::UNPROCESSABLE_ENTITY.into_response();
        }
        *seen = (new.size, new.root);
        let (text, at) = (new.text(), clock::now());
        let signed = cosigned_text(if self.liar { UnixTime(1) } else { at }, &text);
        let line = self.key.line(at, &self.signer.sign(&signed).unwrap());
        // Beside another key's, as witnesses that rotate theirs answer.
        let other = WitnessKey::new("other.example", [7; 32]).unwrap();
        (StatusCode::OK, other.line(at, &[7; 64]) + &line).into_response()
    }

    fn asked(&self) -> Vec<(u64, u16)> {
        self.asked.lock().unwrap().clone()
    }
}

async fn add(State(witness): State<Witness>, body: String) -> Response {
    let answer = witness.add(&body);
    let old = body.strip_prefix("old ").unwrap().split('\n').next().unwrap().parse().unwrap();
    witness.asked.lock().unwrap().push((old, answer.status().as_u16()));
    answer
}

struct Running(CancellationToken, Vec<JoinHandle<()>>);

impl Running {
    fn start(store: &Store, witnesses: Vec<cosigner::Witness>) -> Self {
        let checkpoint_every = Duration::from_millis(50);
        let audit = Audit { checkpoints_to: None, witnesses, checkpoint_every };
        let stop = CancellationToken::new();
        let keep = |cosigner: Cosigner| tokio::spawn(cosigner.keep(store.clone(), stop.clone()));
        let tasks = cosigner::prepare(&audit).unwrap().into_iter().map(keep).collect();
        Self(stop, tasks)
    }

    async fn stop(self) {
        self.0.cancel();
        for task in self.1 {
            task.await.unwrap();
        }
    }
}

async fn grow(store: &Store, count: u64) -> u64 {
    let event = |n| Event::new(EventKind::LineUp).detail(&format!("number {n}"));
    store.record_batch((0..count).map(event).collect()).await.unwrap();
    store.checkpoint().await.unwrap().unwrap().0
}

/// The cosigned note of so many entries, once these have all signed it.
async fn cosigned(store: &Store, size: u64, by: &[&Witness]) -> String {
    let done = async {
        loop {
            if let Some((found, note)) = store.cosigned().await.unwrap()
                && found == size
                && by.iter().all(|witness| {
                    let check = NoteVerifier::from(&witness.key);
                    witness.key.cosigned(&note, &check).unwrap().is_some()
                })
            {
                return note;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("the witnesses cosign", done).await
}

#[tokio::test(flavor = "multi_thread")]
async fn witnesses_cosign_what_goes_on_from_what_they_saw() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let (one, two) =
        (Witness::of(store.log_key(), "one.example"), Witness::of(store.log_key(), "two.example"));
    let size = grow(&store, 10).await;
    let both = vec![one.start().await, two.start().await];
    let running = Running::start(&store, both.clone());
    let note = cosigned(&store, size, &[&one, &two]).await;
    let check = NoteVerifier::from(store.log_key());
    assert_eq!(Checkpoint::open(&note, store.log_key(), &check).unwrap().size, size);
    let later = grow(&store, 300).await;
    cosigned(&store, later, &[&one, &two]).await;
    running.stop().await;
    assert_eq!(one.asked(), [(0, 200), (size, 200)]);

    // Another relay on the same data does not know what the witness knows, and is told.
    let last = grow(&store, 5).await;
    let running = Running::start(&store, both);
    cosigned(&store, last, &[&one, &two]).await;
    running.stop().await;
    assert_eq!(one.asked()[2..], [(0, 409), (later, 200)]);

    // Whoever reads the log has them, and they are of it.
    let page = store.log_page(0, 1000).await.unwrap();
    let signed = page.checkpoints.iter().filter(|note| note.contains("one.example")).count();
    assert_eq!(signed, 2, "the last one of the first tile's, and the newest");
    assert_eq!(crate::audit::review(&store, &[]).await.findings, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_rolled_back_or_forked_gets_no_cosignature_and_it_is_on_record() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let witness = Witness::of(store.log_key(), "one.example");
    let seen = async |seen: (u64, Digest)| {
        *witness.seen.lock().unwrap() = seen;
        let running = Running::start(&store, vec![witness.start().await]);
        let told = async {
            loop {
                let all = store.decisions(0).await.unwrap();
                let told = all.into_iter().filter(|one| one.kind == "witness-refused").count();
                if told > 0 {
                    return told;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        soon("it is on record", told).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        running.stop().await;
    };
    grow(&store, 10).await;
    seen((500, Digest([5; 32]))).await;
    let told = store.decisions(0).await.unwrap().pop().unwrap();
    assert_eq!(told.kind, "witness-refused", "and only once: {told:?}");
    assert!(told.detail.unwrap().contains("has signed 500 entries of this log, here are 10"));
    assert!(store.cosigned().await.unwrap().is_none());

    let other = tempfile::tempdir().unwrap();
    let store = Store::open(other.path()).await.unwrap();
    let witness = Witness::of(store.log_key(), "one.example");
    *witness.seen.lock().unwrap() = (4, Digest([5; 32]));
    grow(&store, 10).await;
    let running = Running::start(&store, vec![witness.start().await]);
    let told = async {
        while store.decisions(0).await.unwrap().last().unwrap().kind != "witness-refused" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("it is on record", told).await;
    running.stop().await;
    let told = store.decisions(0).await.unwrap().pop().unwrap().detail.unwrap();
    assert!(told.contains("another history"), "{told}");
    assert!(witness.asked().contains(&(4, 422)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cosignature_that_is_wrong_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    let liar = Witness { liar: true, ..Witness::of(store.log_key(), "one.example") };
    grow(&store, 10).await;
    let running = Running::start(&store, vec![liar.start().await]);
    let asked = async {
        while liar.asked().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("it is asked", asked).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    running.stop().await;
    assert!(store.cosigned().await.unwrap().is_none());
}
