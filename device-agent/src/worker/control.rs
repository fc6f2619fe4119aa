//! The control socket: the order at a worker's start, then events one way and
//! words the other, each a length (32 bits, big-endian) and a CBOR map.
//!
//! An event is told again, on the next connection, until the supervisor has said
//! that it dealt with it: nothing is lost with a supervisor that dies.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use belay_proto::wire::frame::encode_frame;
use belay_tunnel::framed::{MessageError, Messages};
use bytes::BytesMut;
use minicbor::Encode;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use zeroize::Zeroizing;

use super::event::{Standing, Told, WorkerEvent};
use super::limits::{CONTROL_FRAME_MAX, ORDER_TIMEOUT};
use super::word::Word;

/// One message as it goes out. What does not fit or encode is a fault of ours,
/// for everything in it was bounded: it is logged and left out.
pub(super) fn encoded(message: &impl Encode<()>) -> Vec<u8> {
    encode_frame(message).unwrap_or_else(|error| {
        tracing::error!(%error, "a control message could not be encoded");
        Vec::new()
    })
}

/// The worker's end before its runtime starts.
pub(super) struct Control(UnixStream);

impl Control {
    /// Takes the descriptor the supervisor left on standard output.
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        let socket = UnixStream::from(fd);
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(ORDER_TIMEOUT))?;
        Ok(Self(socket))
    }

    pub(super) fn read(&mut self) -> io::Result<Zeroizing<Vec<u8>>> {
        let mut prefix = [0; 4];
        self.0.read_exact(&mut prefix)?;
        let length = usize::try_from(u32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
        if length > CONTROL_FRAME_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("an order of {length} bytes, more than {CONTROL_FRAME_MAX}"),
            ));
        }
        let mut body = Zeroizing::new(vec![0; length]);
        self.0.read_exact(&mut body)?;
        Ok(body)
    }

    /// The socket that comes behind an order.
    pub(super) fn read_socket(&mut self) -> io::Result<OwnedFd> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let got = recvmsg(
            &self.0,
            &mut [IoSliceMut::new(&mut byte)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        let mut socket = None;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(mut sockets) = message {
                socket = sockets.next();
            }
        }
        match socket {
            Some(socket) if got.bytes == 1 => Ok(socket),
            Some(_) | None => Err(io::Error::new(io::ErrorKind::InvalidData, "no socket came")),
        }
    }

    pub(super) fn send(&mut self, event: WorkerEvent) -> io::Result<()> {
        self.0.write_all(&encoded(&Told { event: Some(event), ..Told::default() }))
    }

    /// Hands the socket over to the runtime.
    pub(super) fn into_async(self) -> io::Result<tokio::net::UnixStream> {
        self.0.set_nonblocking(true)?;
        tokio::net::UnixStream::from_std(self.0)
    }
}

/// The supervisor's side: the order.
pub(super) async fn write_order(
    socket: &mut (impl tokio::io::AsyncWrite + Unpin),
    body: &[u8],
) -> io::Result<()> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut out = Zeroizing::new(Vec::with_capacity(body.len() + 4));
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(body);
    socket.write_all(&out).await
}

/// The supervisor's side: a socket behind the order.
pub(super) async fn write_socket(
    control: &tokio::net::UnixStream,
    socket: BorrowedFd<'_>,
) -> io::Result<()> {
    loop {
        control.writable().await?;
        let sent = control.try_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            let sockets = [socket];
            if !ancillary.push(SendAncillaryMessage::ScmRights(&sockets)) {
                return Err(io::Error::other("one socket is too many"));
            }
            let byte = [IoSlice::new(&[0])];
            Ok(sendmsg(control, &byte, &mut ancillary, SendFlags::NOSIGNAL)?)
        });
        match sent {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// The supervisor's side of a control connection.
#[derive(Debug)]
pub struct ControlLine {
    told: Messages<OwnedReadHalf>,
    words: OwnedWriteHalf,
    outbox: BytesMut,
    /// The number of the event that was given out last.
    given: Option<u64>,
}

impl ControlLine {
    pub(super) fn new(socket: tokio::net::UnixStream) -> Self {
        let (read, words) = socket.into_split();
        Self { told: Messages::new(read), words, outbox: BytesMut::new(), given: None }
    }

    /// The next event; `None` at the end. Asking for it says that the last one
    /// was dealt with: it will not be told again. Cancel-safe.
    ///
    /// # Errors
    /// When the worker broke the protocol or the socket.
    pub async fn next(&mut self) -> Result<Option<WorkerEvent>, MessageError> {
        loop {
            if let Some(number) = self.given.take() {
                self.say(&Word { heard: Some(number), end: None });
            }
            let Some(told) = self.receive().await? else { return Ok(None) };
            self.given = told.number;
            match told {
                Told { event: Some(event), .. } => return Ok(Some(event)),
                Told { standing: Some(_), .. } => {}
                _ => tracing::debug!("a worker told something this version does not know"),
            }
        }
    }

    /// Tells the worker to end its session. It leaves with the next call of
    /// [`Self::next`].
    pub fn end(&mut self, reason: &str) {
        self.say(&Word { heard: None, end: Some(super::event::bounded(reason)) });
    }

    /// What the worker says first to a new supervisor.
    pub(super) async fn standing(&mut self) -> Result<Standing, MessageError> {
        self.receive().await?.and_then(|told| told.standing).ok_or(MessageError::Ended)
    }

    fn say(&mut self, word: &Word) {
        self.outbox.extend_from_slice(&encoded(word));
    }

    async fn receive(&mut self) -> Result<Option<Told>, MessageError> {
        loop {
            tokio::select! {
                // What was dealt with is said before more is taken.
                biased;
                written = self.words.write_buf(&mut self.outbox), if !self.outbox.is_empty() => {
                    // A worker that is gone may have left events to be read.
                    if written.is_err() {
                        self.outbox.clear();
                    }
                }
                told = self.told.next::<Told>() => return told,
            }
        }
    }
}
