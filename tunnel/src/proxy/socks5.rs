//! SOCKS version 5 (RFC 1928), with user and password (RFC 1929) where there are any.

use std::net::IpAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use zeroize::Zeroizing;

use super::{ProxyError, ProxyLogin};

const VERSION: u8 = 5;
const LOGIN_VERSION: u8 = 1;
const NO_LOGIN: u8 = 0;
const USER_AND_PASSWORD: u8 = 2;
const NO_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Asks for a connection to `host` and `port`; a name is the proxy's to resolve.
pub(super) async fn ask<S>(
    stream: &mut S,
    host: &str,
    port: u16,
    login: Option<&ProxyLogin>,
) -> Result<(), ProxyError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let greeting: &[u8] = match login {
        Some(_) => &[VERSION, 2, NO_LOGIN, USER_AND_PASSWORD],
        None => &[VERSION, 1, NO_LOGIN],
    };
    stream.write_all(greeting).await?;
    stream.flush().await?;
    let version = stream.read_u8().await?;
    if version != VERSION {
        return Err(ProxyError::Protocol("it speaks no SOCKS 5"));
    }
    match (stream.read_u8().await?, login) {
        (NO_LOGIN, _) => {}
        (USER_AND_PASSWORD, Some(login)) => log_in(stream, login).await?,
        (NO_METHOD, login) => return Err(ProxyError::Login(login.is_some())),
        _ => return Err(ProxyError::Protocol("it chose what was not offered")),
    }
    let mut request = vec![VERSION, CONNECT, 0];
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => {
            request.push(IPV4);
            request.extend(ip.octets());
        }
        Ok(IpAddr::V6(ip)) => {
            request.push(IPV6);
            request.extend(ip.octets());
        }
        Err(_) => {
            request.push(NAME);
            push_counted(&mut request, host.as_bytes())?;
        }
    }
    request.extend(port.to_be_bytes());
    stream.write_all(&request).await?;
    stream.flush().await?;
    let mut head = [0; 3];
    stream.read_exact(&mut head).await?;
    let [version, reply, _] = head;
    if version != VERSION {
        return Err(ProxyError::Protocol("it speaks no SOCKS 5"));
    }
    if reply != 0 {
        return Err(refusal(reply));
    }
    // The address it connects from, which nobody needs.
    let length = match stream.read_u8().await? {
        IPV4 => 4,
        IPV6 => 16,
        NAME => usize::from(stream.read_u8().await?),
        _ => return Err(ProxyError::Protocol("its answer has no known kind of address")),
    };
    let mut address = vec![0; length + 2];
    stream.read_exact(&mut address).await?;
    Ok(())
}

async fn log_in<S>(stream: &mut S, login: &ProxyLogin) -> Result<(), ProxyError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = Zeroizing::new(vec![LOGIN_VERSION]);
    push_counted(&mut request, login.user.as_bytes())?;
    push_counted(&mut request, login.password.as_bytes())?;
    stream.write_all(&request).await?;
    stream.flush().await?;
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).await?;
    match answer {
        [_, 0] => Ok(()),
        _ => Err(ProxyError::Login(true)),
    }
}

/// RFC 1928 §5 and RFC 1929 §2: one byte of length.
fn push_counted(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), ProxyError> {
    let length = u8::try_from(bytes.len())
        .map_err(|_| ProxyError::Refused("a name or password is longer than 255 bytes".into()))?;
    out.push(length);
    out.extend_from_slice(bytes);
    Ok(())
}

/// RFC 1928 §6.
fn refusal(reply: u8) -> ProxyError {
    let why = match reply {
        1 => "general failure",
        2 => "not allowed by its rules",
        3 => "network unreachable",
        4 => "host unreachable",
        5 => "connection refused",
        6 => "the connection timed out",
        7 => "it knows no CONNECT",
        8 => "it does not know this kind of address",
        _ => "no known reason",
    };
    ProxyError::Refused(format!("{why} (SOCKS reply {reply})"))
}
