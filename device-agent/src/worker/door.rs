//! A worker's door, from outside: how the agent reaches a session that runs.
//!
//! The door is a Unix socket in a directory that only the agent can enter. The
//! first byte of a connection says what it is for, its [`Errand`].

use std::io;
use std::path::Path;
use std::time::Duration;

use belay_tunnel::framed::{self, Messages};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::control::ControlLine;
use super::event::{Standing, Told};
use super::joining::{Answer, Knock};
use super::wire::enlarge;
use super::word::Word;

/// A worker answers at once; a 64 MB board under load takes some seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    /// The session's bytes, under the resume layer. A newer one replaces it.
    Attach,
    /// The same for another client, which has nothing of them: a fresh stream. Answered by a byte.
    Anew,
    /// Events out, words in. A newer one replaces it.
    Control,
    /// One word in, one standing out.
    Visit,
    /// One [`Knock`] in, one answer out; then the bytes of a guest at one of the session's terminals
    /// ([`super::joining`]).
    Join,
}

impl Errand {
    pub(super) const fn byte(self) -> u8 {
        match self {
            Self::Attach => b'A',
            Self::Anew => b'N',
            Self::Control => b'C',
            Self::Visit => b'V',
            Self::Join => b'J',
        }
    }

    pub(super) const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'A' => Some(Self::Attach),
            b'N' => Some(Self::Anew),
            b'C' => Some(Self::Control),
            b'V' => Some(Self::Visit),
            b'J' => Some(Self::Join),
            _ => None,
        }
    }
}

/// A worker could not be reached, or did not answer.
#[derive(Debug, Error)]
pub enum DoorError {
    #[error("the session's worker is gone")]
    Gone(#[source] io::Error),
    #[error("the session's worker cannot be reached")]
    Connect(#[source] io::Error),
    #[error("the session's worker does not answer")]
    Silent,
    #[error("the session's worker answers nonsense")]
    Answer(#[source] framed::MessageError),
}

impl DoorError {
    /// Whether nobody is behind the door any more.
    pub const fn is_gone(&self) -> bool {
        matches!(self, Self::Gone(_))
    }
}

impl From<io::Error> for DoorError {
    fn from(error: io::Error) -> Self {
        if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) {
            Self::Gone(error)
        } else {
            Self::Connect(error)
        }
    }
}

/// Knocks. `door` is no longer than a socket's address may be (`unix(7)`: 108).
///
/// # Errors
/// [`DoorError::Gone`], [`DoorError::Connect`], [`DoorError::Silent`].
pub async fn connect(door: &Path, errand: Errand) -> Result<UnixStream, DoorError> {
    let knock = async {
        let mut socket = UnixStream::connect(door).await?;
        socket.write_all(&[errand.byte()]).await?;
        io::Result::Ok(socket)
    };
    let socket = timeout(ANSWER_WITHIN, knock).await.map_err(|_| DoorError::Silent)??;
    enlarge(&socket);
    Ok(socket)
}

/// A worker's answer to [`Errand::Anew`].
pub(super) const YES: u8 = b'+';
/// See [`YES`].
pub(super) const NO_TERMINAL: u8 = b'-';

/// Whether a worker gives its session to another client.
#[derive(Debug)]
pub enum Anew {
    /// It does; these are the session's bytes.
    Given(UnixStream),
    /// It has no terminal another client could have.
    NoTerminal,
    /// It is of a version that cannot.
    Unable,
}

/// Asks for a fresh stream of the session, for another client.
///
/// # Errors
/// As [`connect`].
pub async fn anew(door: &Path) -> Result<Anew, DoorError> {
    let mut socket = connect(door, Errand::Anew).await?;
    match timeout(ANSWER_WITHIN, socket.read_u8()).await {
        Ok(Ok(YES)) => Ok(Anew::Given(socket)),
        Ok(Ok(NO_TERMINAL)) => Ok(Anew::NoTerminal),
        // An older worker closes what it does not know.
        Ok(Ok(_) | Err(_)) => Ok(Anew::Unable),
        Err(_) => Err(DoorError::Silent),
    }
}

/// Whether a worker lets somebody into one of its terminals.
#[derive(Debug)]
pub enum Joined {
    /// It does: the socket, of which nothing more may be read here, and the terminal's number.
    Seated(UnixStream, u32),
    /// It does not: why, in one line.
    Refused(String),
    /// It is of a version that cannot.
    Unable,
}

/// Asks for a seat at one of the session's terminals, for a guest.
///
/// # Errors
/// As [`connect`].
pub async fn join(door: &Path, knock: &Knock) -> Result<Joined, DoorError> {
    let mut socket = connect(door, Errand::Join).await?;
    let ask = async {
        framed::write(&mut socket, knock).await?;
        framed::read::<Answer, _>(&mut socket).await
    };
    match timeout(ANSWER_WITHIN, ask).await.map_err(|_| DoorError::Silent)? {
        Ok(Answer { terminal: Some(number), .. }) => Ok(Joined::Seated(socket, number)),
        Ok(Answer { refused: Some(why), .. }) => Ok(Joined::Refused(why)),
        Ok(Answer { .. }) => Ok(Joined::Unable),
        // An older worker closes what it does not know.
        Err(framed::MessageError::Ended | framed::MessageError::Stream(_)) => Ok(Joined::Unable),
        Err(error @ framed::MessageError::Frame(_)) => Err(DoorError::Answer(error)),
    }
}

/// Takes a running worker over from a supervisor that is gone.
///
/// # Errors
/// See [`DoorError`].
pub async fn adopt(door: &Path) -> Result<(ControlLine, Standing), DoorError> {
    let mut line = ControlLine::new(connect(door, Errand::Control).await?);
    let standing = timeout(ANSWER_WITHIN, line.standing()).await.map_err(|_| DoorError::Silent)?;
    Ok((line, standing.map_err(DoorError::Answer)?))
}

/// Says one word, and hears how the session stands. Disturbs nobody.
///
/// # Errors
/// See [`DoorError`].
pub async fn visit(door: &Path, word: &Word) -> Result<Standing, DoorError> {
    let ask = async {
        let mut socket = connect(door, Errand::Visit).await?;
        framed::write(&mut socket, word).await.map_err(DoorError::Answer)?;
        let told = Messages::new(socket).next::<Told>().await.map_err(DoorError::Answer)?;
        told.and_then(|told| told.standing).ok_or(DoorError::Answer(framed::MessageError::Ended))
    };
    timeout(ANSWER_WITHIN, ask).await.map_err(|_| DoorError::Silent)?
}
