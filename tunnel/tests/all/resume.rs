//! Resumable streams over real pipes: sockets and in-memory ones that break wherever they like.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use belay_tunnel::stream::{
    Attacher, Carried, Config, Ended, Link, Lost, Reader, RecvEnd, ResetCode, SendEnd, Violation,
    Writer, join, session,
};
use bytes::Bytes;
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf, duplex,
};
use tokio::net::UnixStream;

use crate::chance::{Chance, text};

type End = (SendEnd, RecvEnd, Attacher);

/// Long enough for anything here on a busy machine; only a test that fails waits it out.
const PATIENCE: Duration = Duration::from_secs(30);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("nothing happens")
}

fn is_pending(future: Pin<&mut impl Future>) -> bool {
    future.poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

async fn carry<S: AsyncRead + AsyncWrite + Send>(attacher: &Attacher, stream: S) -> Carried {
    let (read, write) = tokio::io::split(stream);
    attacher.carry(Reader::new(read), Writer::new(write)).await
}

fn run<S: AsyncRead + AsyncWrite + Send + 'static>(
    attacher: &Attacher,
    stream: S,
) -> tokio::task::JoinHandle<Carried> {
    let attacher = attacher.clone();
    tokio::spawn(async move { carry(&attacher, stream).await })
}

/// A stream that breaks after so many bytes in either direction.
struct Brittle<S> {
    inner: S,
    reads: usize,
    writes: usize,
}

impl<S: AsyncRead + Unpin> AsyncRead for Brittle<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.reads == 0 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let mut part = vec![0; self.reads.min(buf.remaining())];
        let mut part = ReadBuf::new(&mut part);
        std::task::ready!(Pin::new(&mut self.inner).poll_read(cx, &mut part))?;
        self.reads -= part.filled().len();
        buf.put_slice(part.filled());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Brittle<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.writes == 0 {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let part = &bytes[..bytes.len().min(self.writes)];
        let count = std::task::ready!(Pin::new(&mut self.inner).poll_write(cx, part))?;
        self.writes -= count;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

async fn send_all(mut send: SendEnd, bytes: Bytes, mut chance: Chance) {
    let mut left = bytes;
    while !left.is_empty() {
        let mut piece = left.split_to(left.len().min(1 + chance.below(100_000)));
        if chance.below(2) == 0 {
            send.write_all(&piece).await.unwrap();
        } else {
            send.send(&mut piece).await.unwrap();
        }
    }
    send.finish();
}

async fn receive_all(mut recv: RecvEnd) -> Vec<u8> {
    let mut all = Vec::new();
    let mut pieces = [const { Bytes::new() }; 8];
    while let Some(filled) = recv.receive(&mut pieces).await.unwrap() {
        pieces[..filled].iter().for_each(|piece| all.extend_from_slice(piece));
    }
    all
}

/// Attaches again and again until both ends say it is closed. How many attachments it took.
async fn attach_until_closed(a: Attacher, b: Attacher, mut chance: Chance) -> usize {
    for count in 1.. {
        let (left, right) = duplex(1 + chance.below(100_000));
        let longevity = chance.below(1_000_000);
        let left = Brittle { inner: left, reads: longevity, writes: chance.below(1_000_000) };
        // Whoever loses an attachment drops it, so the other loses it too.
        let ends = (carry(&a, left), carry(&b, right));
        let ends = tokio::join!(ends.0, ends.1);
        match ends {
            (Carried::Closed, Carried::Closed) => return count,
            (Carried::Closed | Carried::Lost(_), Carried::Closed | Carried::Lost(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    unreachable!("counted through")
}

#[tokio::test]
async fn every_byte_arrives_once_over_pipes_that_break_anywhere() {
    let mut breaks = 0;
    for seed in 0..20 {
        println!("seed {seed}");
        let mut chance = Chance(seed);
        let mut config =
            || Config { replay: 1 << (16 + chance.below(7)), window: 1 << (16 + chance.below(7)) };
        let (a, b) = (session(config()), session(config()));
        let down = text(seed, 3_000_000 + chance.below(1_000_000));
        let up = text(!seed, chance.below(3_000_000));
        let (_, _, received_down, received_up, attachments) = soon(async {
            tokio::join!(
                send_all(a.0, down.clone(), Chance(seed + 100)),
                send_all(b.0, up.clone(), Chance(seed + 200)),
                receive_all(b.1),
                receive_all(a.1),
                attach_until_closed(a.2.clone(), b.2.clone(), Chance(seed + 300)),
            )
        })
        .await;
        assert!(received_down == down && received_up == up, "seed {seed}: other bytes");
        assert!(a.2.is_closed() && b.2.is_closed());
        assert_eq!(a.2.traffic().unacknowledged, 0);
        breaks += attachments - 1;
    }
    assert!(breaks > 20, "only {breaks} breaks in all");
}

#[tokio::test]
async fn a_joined_stream_over_a_socket_is_a_byte_stream() {
    let ((a_send, a_recv, a), (b_send, b_recv, b)) = pair();
    let (left, right) = UnixStream::pair().unwrap();
    let (left, right) = (run(&a, left), run(&b, right));
    let (mut near, mut far) = (join(a_send, a_recv), join(b_send, b_recv));
    near.write_all(b"hello").await.unwrap();
    near.shutdown().await.unwrap();
    let mut heard = String::new();
    soon(far.read_to_string(&mut heard)).await.unwrap();
    far.write_all(heard.to_uppercase().as_bytes()).await.unwrap();
    far.shutdown().await.unwrap();
    let mut answer = String::new();
    soon(near.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(answer, "HELLO");
    assert!(matches!(soon(left).await.unwrap(), Carried::Closed));
    assert!(matches!(soon(right).await.unwrap(), Carried::Closed));
    let error = near.write_all(b"x").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

fn pair() -> (End, End) {
    (session(Config::default()), session(Config::default()))
}

async fn get(recv: &mut RecvEnd, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    soon(recv.read_exact(&mut got)).await.unwrap();
    assert_eq!(got, expected);
}

/// Application and attachment on different threads, over and over at the moment one goes idle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wake_up_is_lost_between_threads() {
    let ((a_send, a_recv, a), (b_send, b_recv, b)) = pair();
    let (left, right) = duplex(64);
    let (_left, _right) = (run(&a, left), run(&b, right));
    let (mut near, mut far) = (join(a_send, a_recv), join(b_send, b_recv));
    let echo = tokio::spawn(async move {
        let (mut read, mut write) = tokio::io::split(&mut far);
        tokio::io::copy(&mut read, &mut write).await.unwrap();
        far.shutdown().await.unwrap();
        far
    });
    for turn in 0..20_000_u32 {
        near.write_all(&turn.to_be_bytes()).await.unwrap();
        // The second comes while the attachment is anywhere in its work on the first.
        (0..turn % 1_000).for_each(|_| std::hint::spin_loop());
        near.write_all(&turn.to_be_bytes()).await.unwrap();
        for _ in 0..2 {
            let answer = tokio::time::timeout(PATIENCE, near.read_u32()).await.expect("asleep");
            assert_eq!(answer.unwrap(), turn);
        }
    }
    near.shutdown().await.unwrap();
    let _far = soon(echo).await.unwrap();
}

#[tokio::test]
async fn a_new_attachment_replaces_the_old_one_though_that_still_works() {
    let ((mut a_send, _a_recv, a), (_b_send, mut b_recv, b)) = pair();
    let (left, right) = duplex(1000);
    let old = (run(&a, left), run(&b, right));
    a_send.write_all(b"old").await.unwrap();
    get(&mut b_recv, b"old").await;
    let (left, right) = duplex(1000);
    let new = (run(&a, left), run(&b, right));
    assert!(matches!(soon(old.0).await.unwrap(), Carried::Replaced));
    assert!(!matches!(soon(old.1).await.unwrap(), Carried::Closed));
    a_send.write_all(b"new").await.unwrap();
    get(&mut b_recv, b"new").await;
    assert!(!new.0.is_finished() && !new.1.is_finished());
}

#[tokio::test]
async fn a_dropped_carry_detaches_and_what_was_sent_meanwhile_arrives_later() {
    let ((mut a_send, _a_recv, a), (_b_send, mut b_recv, b)) = pair();
    let mut link = a.link();
    assert!(matches!(*link.borrow_and_update(), Link::Down { .. }) && a.detached_for().is_some());
    let (left, right) = duplex(1000);
    let (left, right) = (run(&a, left), run(&b, right));
    a_send.write_all(b"one").await.unwrap();
    get(&mut b_recv, b"one").await;
    soon(link.wait_for(|link| *link == Link::Up)).await.unwrap();
    assert_eq!(a.detached_for(), None);
    left.abort();
    right.abort();
    soon(link.wait_for(|link| matches!(link, Link::Down { .. }))).await.unwrap();
    assert!(a.detached_for().is_some());
    a_send.write_all(b"two").await.unwrap();
    let (left, right) = duplex(1000);
    let _running = (run(&a, left), run(&b, right));
    get(&mut b_recv, b"two").await;
    soon(link.wait_for(|link| *link == Link::Up)).await.unwrap();
}

#[tokio::test]
async fn a_full_replay_buffer_blocks_the_writer_and_drops_nothing() {
    let (mut send, _recv, a) = session(Config { replay: 64 << 10, window: 64 << 10 });
    let whole = text(7, 100_000);
    let mut left = whole.clone();
    {
        let mut sending = pin!(send.send(&mut left));
        assert!(is_pending(sending.as_mut()));
        assert!(is_pending(sending.as_mut()));
        // Cancelled here: what was not taken is still ours.
    }
    assert_eq!(left.len(), whole.len() - (64 << 10));
    assert_eq!(a.traffic().unacknowledged, 64 << 10);
    let (_far_send, far_recv, b) = session(Config::default());
    let (near, far) = duplex(5000);
    let _running = (run(&a, near), run(&b, far));
    soon(send.send(&mut left)).await.unwrap();
    send.finish();
    assert!(soon(receive_all(far_recv)).await == whole);
}

#[tokio::test]
async fn a_reader_that_stops_stops_its_writer_and_not_the_other_direction() {
    let small = Config { replay: 64 << 10, window: 64 << 10 };
    let ((mut a_send, a_recv, a), (mut b_send, mut b_recv, b)) = (session(small), session(small));
    let (left, right) = duplex(2000);
    let _running = (run(&a, left), run(&b, right));
    // Nobody reads at `a`.
    let much = text(1, 1_000_000);
    let sending = tokio::spawn({
        let mut much = much.clone();
        async move {
            b_send.send(&mut much).await.unwrap();
            b_send.finish();
            b_send
        }
    });
    let other = text(2, 1_000_000);
    let (sent, got) = soon(async {
        tokio::join!(a_send.write_all(&other), async {
            let mut got = vec![0; other.len()];
            b_recv.read_exact(&mut got).await.unwrap();
            got
        })
    })
    .await;
    sent.unwrap();
    assert!(got == other);
    assert!(!sending.is_finished());
    assert!(a.traffic().waiting <= 64 << 10);
    assert!(soon(receive_all(a_recv)).await == much);
    let _b_send = soon(sending).await.unwrap();
}

/// Takes everything and says nothing.
struct Mute(DuplexStream);

impl Mute {
    fn listen(mut self) -> tokio::task::JoinHandle<Vec<u8>> {
        tokio::spawn(async move {
            let mut all = Vec::new();
            self.0.read_to_end(&mut all).await.unwrap();
            all
        })
    }
}

#[tokio::test]
async fn a_mute_attachment_is_noticed_and_a_new_one_heals_it() {
    let ((mut a_send, _a_recv, a), (_b_send, mut b_recv, b)) = pair();
    let (left, right) = duplex(1000);
    let heard = Mute(right).listen();
    let mute = run(&a, left);
    a_send.write_all(b"anyone?").await.unwrap();
    soon(a.silent()).await;
    assert!(!mute.is_finished(), "the old attachment is kept");
    let (left, right) = duplex(1000);
    let _running = (run(&a, left), run(&b, right));
    get(&mut b_recv, b"anyone?").await;
    soon(a.link().wait_for(|link| *link == Link::Up)).await.unwrap();
    assert!(matches!(soon(mute).await.unwrap(), Carried::Replaced));
    let heard = soon(heard).await.unwrap();
    // START, DATA behind it at once, and the question.
    assert_eq!(heard[0], 1);
    assert!(heard.ends_with(&[2, 0, 7, b'a', b'n', b'y', b'o', b'n', b'e', b'?', 7, 1]));
}

#[tokio::test]
async fn a_reset_reaches_the_other_end_and_both_are_closed() {
    let ((mut a_send, mut a_recv, a), (mut b_send, mut b_recv, b)) = pair();
    a_send.write_all(b"never mind").await.unwrap();
    a_send.reset(ResetCode(77));
    let (left, right) = duplex(1000);
    let (left, right) = (run(&a, left), run(&b, right));
    let code = |ended| {
        let Ended::Reset(ResetCode(code)) = ended else { panic!("{ended}") };
        code
    };
    let mut pieces = [Bytes::new()];
    assert_eq!(code(soon(b_recv.receive(&mut pieces)).await.unwrap_err()), 77);
    assert_eq!(code(soon(a_recv.receive(&mut pieces)).await.unwrap_err()), 77);
    let mut more = Bytes::from_static(b"x");
    assert_eq!(code(b_send.send(&mut more).await.unwrap_err()), 77);
    assert!(matches!(soon(left).await.unwrap(), Carried::Closed));
    assert!(matches!(soon(right).await.unwrap(), Carried::Closed));
}

#[tokio::test]
async fn a_sender_dropped_without_an_end_is_no_clean_end() {
    let ((a_send, _a_recv, a), (_b_send, mut b_recv, b)) = pair();
    let (left, right) = duplex(1000);
    let _running = (run(&a, left), run(&b, right));
    drop(a_send);
    let ended = soon(b_recv.receive(&mut [Bytes::new()])).await.unwrap_err();
    assert!(matches!(ended, Ended::Reset(ResetCode::GONE)), "{ended}");
}

#[tokio::test]
async fn nonsense_ends_the_session_and_is_answered_with_a_reset() {
    let (_a_send, mut a_recv, a) = session(Config::default());
    let (left, mut right) = duplex(1000);
    let running = run(&a, left);
    right.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let carried = soon(running).await.unwrap();
    assert!(matches!(carried, Carried::Violation(Violation::UnknownFrame(b'G'))), "{carried:?}");
    let ended = soon(a_recv.receive(&mut [Bytes::new()])).await.unwrap_err();
    assert_eq!(ended.to_string(), "an unknown frame of type 0x47");
    let mut heard = Vec::new();
    soon(right.read_to_end(&mut heard)).await.unwrap();
    assert!(heard.ends_with(&[5, 2]), "{heard:?}");
}

#[tokio::test]
async fn an_end_that_lost_its_state_is_told_apart() {
    let ((mut a_send, mut a_recv, a), (_b_send, mut b_recv, b)) = pair();
    let (left, right) = duplex(1000);
    let running = (run(&a, left), run(&b, right));
    a_send.write_all(b"known").await.unwrap();
    get(&mut b_recv, b"known").await;
    soon(async {
        while a.traffic().unacknowledged > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    running.1.abort();
    assert!(matches!(soon(running.0).await.unwrap(), Carried::Lost(Lost::Ended)));
    let (_send, _recv, fresh) = session(Config::default());
    let (left, right) = duplex(1000);
    let (carried, _other) = (run(&a, left), run(&fresh, right));
    let carried = soon(carried).await.unwrap();
    assert!(matches!(carried, Carried::Violation(Violation::LostState { has: 0, .. })));
    let ended = soon(a_recv.receive(&mut [Bytes::new()])).await.unwrap_err();
    assert!(ended.to_string().starts_with("the other end lost the session's state"));
}

#[tokio::test]
async fn an_end_with_a_reason_ends_everything_here() {
    let (mut send, mut recv, a) = session(Config { replay: 64 << 10, window: 64 << 10 });
    let (left, _right) = duplex(1000);
    let running = run(&a, left);
    let sending =
        tokio::spawn(
            async move { send.send(&mut text(1, 200_000)).await.unwrap_err().to_string() },
        );
    let receiving =
        tokio::spawn(
            async move { recv.receive(&mut [Bytes::new()]).await.unwrap_err().to_string() },
        );
    tokio::task::yield_now().await;
    a.end("the grant has ended");
    assert!(matches!(soon(running).await.unwrap(), Carried::Ended));
    assert_eq!(soon(sending).await.unwrap(), "the grant has ended");
    assert_eq!(soon(receiving).await.unwrap(), "the grant has ended");
    let (left, _right) = duplex(1000);
    assert!(matches!(soon(carry(&a, left)).await, Carried::Ended));
}

#[tokio::test]
async fn nothing_is_written_while_nothing_is_said() {
    let ((_a_send, _a_recv, a), (_b_send, _b_recv, b)) = pair();
    let (left, mut middle_left) = duplex(1000);
    let (right, mut middle_right) = duplex(1000);
    let _running = (run(&a, left), run(&b, right));
    let mut passed = (0, 0);
    // Twice as long as an end that waits for something takes before it asks.
    let quiet = tokio::time::timeout(Duration::from_secs(3), async {
        let (mut one, mut other) = ([0; 1000], [0; 1000]);
        loop {
            tokio::select! {
                n = middle_left.read(&mut one) => {
                    let n = n.unwrap();
                    passed.0 += n;
                    middle_right.write_all(&one[..n]).await.unwrap();
                }
                n = middle_right.read(&mut other) => {
                    let n = n.unwrap();
                    passed.1 += n;
                    middle_left.write_all(&other[..n]).await.unwrap();
                }
            }
        }
    });
    let outcome: Result<(), _> = quiet.await;
    assert!(outcome.is_err());
    // One START each.
    assert_eq!(passed, (12, 12));
    assert_eq!(*a.link().borrow(), Link::Up);
}
