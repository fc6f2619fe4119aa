//! The ways to a relay: the race, a blocked UDP, proxies, and somebody in between.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use belay_tunnel::carrier::Carrier;
use belay_tunnel::carrier::picker::{
    Choice, History, How, Kind, Trouble, Wanted, dial, quic_again, remark,
};
use belay_tunnel::proxy::Proxies;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::rig::{Rig, Trust, Udp, read_request, within};

const LOGIN: &str = "aHVnbzpnZWhlaW0="; // hugo:geheim

#[tokio::test]
async fn quic_wins_where_both_are_up() {
    let rig = Rig::new().await;
    for last in [None, Some(Kind::WebSocket)] {
        let history = Arc::new(last.map_or_else(History::default, History::after));
        let dialled = within(dial(&Wanted { history, ..rig.wanted() })).await.unwrap();
        if last.is_none() {
            assert_eq!(dialled.kind, Kind::Quic);
            assert_eq!(dialled.attempts.len(), 1, "{:?}", dialled.attempts);
        }
        assert_eq!(remark(&dialled.attempts).is_some(), dialled.kind == Kind::WebSocket);
    }
}

#[tokio::test]
async fn websocket_wins_where_udp_is_swallowed() {
    let rig = Rig::without_udp().await;
    let began = Instant::now();
    let dialled = within(dial(&rig.wanted())).await.unwrap();
    assert_eq!((dialled.kind, dialled.carrier.kind()), (Kind::WebSocket, "websocket"));
    assert!(dialled.carrier.is_fallback());
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(500) && took < Duration::from_secs(5), "{took:?}");
    let overtaken = dialled.attempts.iter().find(|a| a.kind == Kind::Quic).unwrap();
    assert_eq!(overtaken.how, How::Overtaken);
    assert!(remark(&dialled.attempts).unwrap().0.contains("UDP"));

    // Who knows better does not wait.
    let wanted = Wanted { history: Arc::new(History::after(Kind::WebSocket)), ..rig.wanted() };
    let began = Instant::now();
    assert_eq!(within(dial(&wanted)).await.unwrap().kind, Kind::WebSocket);
    assert!(began.elapsed() < Duration::from_millis(450), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_relay_without_a_place_is_not_asked_over_tcp_as_well() {
    let rig = Rig::with(Trust::new(), Udp::Full).await;
    let unreached = within(dial(&rig.wanted())).await.unwrap_err();
    let [attempt] = &unreached.attempts[..] else { panic!("{unreached:?}") };
    assert_eq!((attempt.kind, attempt.trouble()), (Kind::Quic, Some(Trouble::Busy)));
}

#[tokio::test]
async fn a_forced_carrier_is_the_only_one_tried() {
    let rig = Rig::new().await;
    for kind in [Kind::Quic, Kind::WebSocket] {
        let choice = Choice::of(&kind.to_string()).unwrap();
        let dialled = within(dial(&Wanted { choice, ..rig.wanted() })).await.unwrap();
        assert_eq!(dialled.kind, kind);
        assert!(dialled.attempts.iter().all(|attempt| attempt.kind == kind));
    }
    assert!(Choice::of("tcp").unwrap_err().to_string().contains("\"tcp\""));
}

#[tokio::test]
async fn where_nothing_listens_the_race_ends_at_once_with_every_attempt() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let rig = Rig::without_udp().await;
    let wanted = Wanted {
        relay: free.to_string().parse().unwrap(),
        choice: Choice::Only(Kind::WebSocket),
        ..rig.wanted()
    };
    let unreached = within(dial(&wanted)).await.unwrap_err();
    assert_eq!(unreached.token, "relay-unreachable");
    assert!(unreached.cause.contains("refuses TCP"), "{unreached}");
    assert_eq!(unreached.attempts.len(), 1);
}

#[tokio::test]
async fn a_stranger_in_between_is_told_apart_from_a_relay_made_anew() {
    // TLS is answered by somebody else; UDP is swallowed.
    let rig = Rig::with(Trust::new(), Udp::Swallowed).await;
    let ours = Trust::new();
    let wanted = Wanted {
        tls: rig.trust.client_that_trusts(&ours),
        history: Arc::new(History::after(Kind::WebSocket)),
        ..rig.wanted()
    };
    let unreached = within(dial(&wanted)).await.unwrap_err();
    assert_eq!(unreached.token, "tls-intercepted", "{unreached}");
    assert!(unreached.lasting);

    let rig = Rig::new().await;
    let wanted = Wanted { tls: rig.trust.client_that_trusts(&ours), ..rig.wanted() };
    let unreached = within(dial(&wanted)).await.unwrap_err();
    assert_eq!(unreached.token, "foreign-certificate", "{unreached}");
}

#[tokio::test]
async fn a_certificate_the_relay_does_not_accept_is_told() {
    let rig = Rig::without_udp().await;
    let tls = Trust::new().client_that_trusts(&rig.trust);
    let choice = Choice::Only(Kind::WebSocket);
    let unreached = within(dial(&Wanted { tls, choice, ..rig.wanted() })).await.unwrap_err();
    assert_eq!(unreached.token, "foreign-certificate", "{unreached}");
    assert!(unreached.cause.contains("does not accept"), "{unreached}");
}

#[tokio::test]
async fn quic_that_comes_back_is_found() {
    let rig = Rig::new().await;
    let wanted = Wanted { look_every: Duration::from_millis(50), ..rig.wanted() };
    assert_eq!(within(quic_again(|| Some(wanted.clone()))).await.kind(), "quic");
    let forced = Wanted { choice: Choice::Only(Kind::WebSocket), ..wanted };
    let looked = timeout(Duration::from_millis(300), quic_again(|| Some(forced.clone()))).await;
    assert!(looked.is_err(), "who forced the other does not look");
}

#[tokio::test]
async fn a_quic_that_broke_its_promise_comes_second_and_still_comes() {
    let rig = Rig::new().await;
    let history = Arc::new(History::default());
    history.silenced(Kind::Quic, Duration::from_secs(1));
    let wanted = Wanted { history, ..rig.wanted() };
    assert_eq!(within(dial(&wanted)).await.unwrap().kind, Kind::WebSocket);

    // The only way out may be the doubted one.
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let proxies = Proxies::explicit(&format!("http://{nobody}")).unwrap();
    let dialled = within(dial(&Wanted { proxies, ..wanted })).await.unwrap();
    assert_eq!(dialled.kind, Kind::Quic);
    assert!(dialled.attempts.iter().any(|a| a.kind == Kind::WebSocket), "it was tried first");
}

/// A proxy by hand. Counts nothing, forwards what it is asked for.
async fn http_proxy(wants_login: bool) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let headers = read_request(&mut client).await.unwrap();
                let login = headers.get("proxy-authorization").map(|h| h.to_str().unwrap());
                if wants_login && login != Some(&format!("Basic {LOGIN}")) {
                    let no = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n";
                    client.write_all(no).await.unwrap();
                    return;
                }
                let target = headers.get("host").unwrap().to_str().unwrap().to_owned();
                let Ok(mut server) = TcpStream::connect(target).await else {
                    client.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await.unwrap();
                    return;
                };
                client.write_all(b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\n").await.unwrap();
                copy_bidirectional(&mut client, &mut server).await.ok();
            });
        }
    });
    (address, task)
}

async fn socks_proxy(wants_login: bool) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Err(error) = socks(client, wants_login).await {
                    println!("proxy: {error}");
                }
            });
        }
    });
    (address, task)
}

async fn socks(mut client: TcpStream, wants_login: bool) -> std::io::Result<()> {
    assert_eq!(client.read_u8().await?, 5);
    let mut methods = vec![0; usize::from(client.read_u8().await?)];
    client.read_exact(&mut methods).await?;
    if wants_login {
        if !methods.contains(&2) {
            return client.write_all(&[5, 0xff]).await;
        }
        client.write_all(&[5, 2]).await?;
        let mut login = Vec::new();
        assert_eq!(client.read_u8().await?, 1);
        for _ in 0..2 {
            let mut text = vec![0; usize::from(client.read_u8().await?)];
            client.read_exact(&mut text).await?;
            login.push(text);
        }
        if login != [b"hugo".to_vec(), b"geheim".to_vec()] {
            return client.write_all(&[1, 1]).await;
        }
        client.write_all(&[1, 0]).await?;
    } else {
        client.write_all(&[5, 0]).await?;
    }
    let mut head = [0; 4];
    client.read_exact(&mut head).await?;
    assert_eq!(head, [5, 1, 0, 1], "CONNECT to an IPv4 address");
    let ip = client.read_u32().await?;
    let port = client.read_u16().await?;
    let Ok(mut server) = TcpStream::connect((std::net::Ipv4Addr::from(ip), port)).await else {
        return client.write_all(&[5, 5, 0, 1, 0, 0, 0, 0, 0, 0]).await;
    };
    client.write_all(&[5, 0, 0, 3, 2, b'o', b'k', 0, 0]).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// The carrier through a proxy, or why there is none.
async fn through(rig: &Rig, proxy: &str) -> Result<Carrier, String> {
    let proxies = Proxies::explicit(proxy).unwrap();
    let wanted = Wanted { proxies, choice: Choice::Only(Kind::WebSocket), ..rig.wanted() };
    match within(dial(&wanted)).await {
        Ok(dialled) => {
            let (mut send, _recv) = dialled.carrier.open().await.unwrap();
            send.write_all(b"through").await.unwrap();
            send.finish();
            assert_eq!(dialled.attempts[0].to, proxy.replace("hugo:geheim@", ""));
            Ok(dialled.carrier)
        }
        Err(unreached) => Err(format!("{}: {unreached}", unreached.token)),
    }
}

#[tokio::test]
async fn a_line_goes_through_a_proxy_with_and_without_a_login() {
    let mut rig = Rig::without_udp().await;
    for login in [false, true] {
        let (http, _one) = http_proxy(login).await;
        let (socks, _two) = socks_proxy(login).await;
        for (scheme, proxy) in [("http", http), ("socks5", socks)] {
            let who = if login { "hugo:geheim@" } else { "" };
            let _carrier = through(&rig, &format!("{scheme}://{who}{proxy}")).await.unwrap();
            let relay = rig.accepted().await;
            let (_send, mut recv) = within(relay.accept()).await.unwrap();
            let mut heard = String::new();
            recv.read_to_string(&mut heard).await.unwrap();
            assert_eq!(heard, "through");
            if login {
                for who in ["", "hugo:falsch@"] {
                    let why = through(&rig, &format!("{scheme}://{who}{proxy}")).await;
                    let why = why.unwrap_err();
                    assert!(why.starts_with("proxy-login: the proxy wants a user"), "{why}");
                    assert!(!why.contains("falsch"), "{why}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_proxy_that_cannot_reach_the_relay_says_so() {
    let rig = Rig::without_udp().await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (http, _one) = http_proxy(false).await;
    let (socks, _two) = socks_proxy(false).await;
    for (proxy, says) in [
        (format!("http://{http}"), "HTTP status 502"),
        (format!("socks5://{socks}"), "connection refused"),
        (format!("http://{free}"), "cannot connect to the proxy"),
        (format!("socks5://{}", rig.address), "no SOCKS 5"),
    ] {
        let proxies = Proxies::explicit(&proxy).unwrap();
        let relay = if proxy.ends_with(&rig.address.to_string()) { rig.address } else { free };
        let wanted = Wanted {
            relay: relay.to_string().parse().unwrap(),
            proxies,
            choice: Choice::Only(Kind::WebSocket),
            ..rig.wanted()
        };
        let unreached = within(dial(&wanted)).await.unwrap_err();
        assert_eq!(unreached.token, "proxy", "{unreached}");
        assert!(unreached.cause.contains(says), "{unreached}");
    }
}
