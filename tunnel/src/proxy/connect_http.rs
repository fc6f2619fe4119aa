//! HTTP CONNECT (RFC 9110 §9.3.6), with Basic credentials (RFC 7617) where there are any.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use zeroize::Zeroizing;

use super::{ProxyError, ProxyLogin};

/// Longest head of an answer, in bytes. What is real has a few hundred.
const MAX_HEAD: usize = 8 * 1024;

/// Asks for a connection to `host` and `port`.
pub(super) async fn ask<S>(
    stream: &mut S,
    host: &str,
    port: u16,
    login: Option<&ProxyLogin>,
) -> Result<(), ProxyError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let target =
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let mut request = Zeroizing::new(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"));
    if let Some(ProxyLogin { user, password }) = login {
        let pair = Zeroizing::new(format!("{user}:{}", password.as_str()));
        let pair = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
        request.push_str("Proxy-Authorization: Basic ");
        request.push_str(&pair);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let head = read_head(stream).await?;
    judge(&head, login.is_some())
}

/// Byte by byte, since what follows the head is not ours: once a connection, this is cheap enough.
async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, ProxyError> {
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_HEAD {
            return Err(ProxyError::Protocol("its answer has no end"));
        }
        head.push(stream.read_u8().await?);
    }
    Ok(head)
}

fn judge(head: &[u8], with_login: bool) -> Result<(), ProxyError> {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = belay_proto::error_line::printable(&String::from_utf8_lossy(line));
    let mut words = line.splitn(3, ' ');
    let version = words.next().unwrap_or_default();
    let status = words.next().and_then(|status| status.parse::<u16>().ok());
    match status {
        _ if !version.starts_with("HTTP/1.") => Err(ProxyError::Protocol("it speaks no HTTP/1")),
        Some(200..=299) => Ok(()),
        Some(407) => Err(ProxyError::Login(with_login)),
        Some(status) => {
            let reason = words.next().unwrap_or_default().trim();
            let reason = reason.get(..reason.floor_char_boundary(80)).unwrap_or_default();
            Err(ProxyError::Refused(format!("HTTP status {status} {reason}").trim_end().to_owned()))
        }
        None => Err(ProxyError::Protocol("its answer has no status")),
    }
}
