//! Which proxy, if any: what was said explicitly, else the environment.
//!
//! `HTTPS_PROXY` or `https_proxy`, else `ALL_PROXY` or `all_proxy`; where both spellings are set,
//! the small one counts, as curl has it. `NO_PROXY` or `no_proxy` lists what goes direct: names,
//! names with all below them (`.example.com` and `example.com` mean the same), addresses, networks
//! (`10.0.0.0/8`), or `*` for everything. A value that cannot be used is an error: going direct
//! instead would hide the mistake behind a time-out.

use std::net::IpAddr;

use zeroize::Zeroizing;

use super::{Protocol, Proxy, ProxyLogin};

/// Port of an HTTP proxy that names none, as curl has it.
const HTTP_PORT: u16 = 1080;

/// Port of a SOCKS proxy that names none (RFC 1928 §3).
const SOCKS_PORT: u16 = 1080;

/// A configured proxy cannot be used. The value is not shown: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting} is no proxy's address: {why}; write http://HOST:PORT or socks5://HOST:PORT")]
pub struct BadProxy {
    setting: String,
    why: &'static str,
}

/// The configured proxy, and what goes direct all the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    proxy: Option<Proxy>,
    /// Where it was named.
    setting: &'static str,
    direct: Vec<Direct>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Direct {
    Everything,
    /// A name and all below it, without a leading dot.
    Name(String),
    Network(IpAddr, u8),
}

impl Proxies {
    /// None: everything goes direct.
    pub fn none() -> Self {
        Self::default()
    }

    /// This one for everything.
    ///
    /// # Errors
    /// [`BadProxy`].
    pub fn explicit(url: &str) -> Result<Self, BadProxy> {
        let setting = "the proxy";
        Ok(Self { proxy: Some(parse(setting, url)?), setting, direct: Vec::new() })
    }

    /// What the process's environment says.
    ///
    /// # Errors
    /// [`BadProxy`].
    pub fn from_environment() -> Result<Self, BadProxy> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// What an environment says.
    ///
    /// # Errors
    /// [`BadProxy`].
    pub fn from_variables(value: impl Fn(&str) -> Option<String>) -> Result<Self, BadProxy> {
        let set = |name: &&'static str| value(name).filter(|text| !text.trim().is_empty());
        let proxy = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
            .iter()
            .find_map(|name| set(name).map(|text| (*name, text)));
        let setting = proxy.as_ref().map_or("", |(name, _)| name);
        let proxy = proxy.map(|(name, text)| parse(name, &text)).transpose()?;
        let direct = ["no_proxy", "NO_PROXY"].iter().find_map(set).unwrap_or_default();
        let direct = direct.split(',').filter_map(direct_of).collect();
        Ok(Self { proxy, setting, direct })
    }

    /// What is configured for the way to `host`, for a person: which setting, which proxy, and
    /// whether a user and password go with it, without either. `None` when nothing is.
    pub fn described(&self, host: &str) -> Option<String> {
        let (proxy, setting) = (self.proxy.as_ref()?, self.setting);
        if self.towards(host).is_none() {
            return Some(format!("{setting} names {proxy}, and NO_PROXY goes around it to {host}"));
        }
        let login = if proxy.login.is_some() { "with" } else { "without" };
        Some(format!("{setting} names {proxy}, {login} a user and password"))
    }

    /// The proxy on the way to `host`, if there is one.
    pub fn towards(&self, host: &str) -> Option<&Proxy> {
        let ip = host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
        let goes_direct = self.direct.iter().any(|direct| match (direct, ip) {
            (Direct::Everything, _) => true,
            (Direct::Network(network, bits), Some(ip)) => is_in(ip, *network, *bits),
            (Direct::Name(name), None) => is_below(host, name),
            (Direct::Network(..), None) | (Direct::Name(_), Some(_)) => false,
        });
        self.proxy.as_ref().filter(|_| !goes_direct)
    }
}

fn direct_of(item: &str) -> Option<Direct> {
    let item = item.trim();
    if item.is_empty() {
        return None;
    }
    if item == "*" {
        return Some(Direct::Everything);
    }
    let (address, bits) = match item.split_once('/') {
        Some((address, bits)) => (address, bits.parse::<u8>().ok()),
        None => (item, None),
    };
    let address = address.trim_start_matches('[').trim_end_matches(']');
    Some(match address.parse::<IpAddr>() {
        Ok(ip) => {
            let ip = ip.to_canonical();
            let all = if ip.is_ipv4() { 32 } else { 128 };
            Direct::Network(ip, bits.unwrap_or(all).min(all))
        }
        Err(_) => Direct::Name(item.trim_start_matches('.').to_ascii_lowercase()),
    })
}

fn is_in(ip: IpAddr, network: IpAddr, bits: u8) -> bool {
    let shifted = |all: u32| all.saturating_sub(u32::from(bits));
    match (ip, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let by = shifted(32);
            a.to_bits().checked_shr(by) == b.to_bits().checked_shr(by)
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let by = shifted(128);
            a.to_bits().checked_shr(by) == b.to_bits().checked_shr(by)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

fn is_below(host: &str, name: &str) -> bool {
    let host = host.to_ascii_lowercase();
    host == name || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'))
}

fn parse(setting: &str, url: &str) -> Result<Proxy, BadProxy> {
    let bad = |why| BadProxy { setting: setting.to_owned(), why };
    let url = url.trim();
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let (protocol, default_port) = match scheme.to_ascii_lowercase().as_str() {
        "http" => (Protocol::Http, HTTP_PORT),
        "socks5" | "socks5h" => (Protocol::Socks5, SOCKS_PORT),
        "https" => return Err(bad("TLS to the proxy itself is not spoken")),
        _ => return Err(bad("its scheme is not known")),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (login, place) = match authority.rsplit_once('@') {
        Some((login, place)) => (Some(login), place),
        None => (None, authority),
    };
    let login = match login {
        Some(login) => {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            let decoded = |text| percent_decoded(text).ok_or_else(|| bad("its user or password"));
            Some(ProxyLogin { user: decoded(user)?, password: Zeroizing::new(decoded(password)?) })
        }
        None => None,
    };
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or_else(|| bad("its host"))?;
            (host, after.strip_prefix(':'))
        }
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    let port = match port {
        Some(digits) => match digits.parse::<u16>() {
            Ok(port) if port != 0 => port,
            Ok(_) | Err(_) => return Err(bad("its port")),
        },
        None => default_port,
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:%".contains(&byte);
    if host.is_empty() || !host.bytes().all(plain) {
        return Err(bad("its host"));
    }
    Ok(Proxy { protocol, host: host.to_owned(), port, login })
}

/// RFC 3986 §2.1. A control character is no part of a user or password: it would end a header line.
fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            let value = digit(bytes.next())? * 16 + digit(bytes.next())?;
            out.push(u8::try_from(value).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok().filter(|text| !text.chars().any(char::is_control))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Proxies {
        Proxies::from_variables(|name| {
            variables.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned())
        })
        .unwrap()
    }

    #[test]
    fn the_more_special_variable_counts_and_the_small_one_before_it() {
        let shown = |variables: &[(&str, &str)]| {
            of(variables).towards("relay.test").map(ToString::to_string)
        };
        assert_eq!(shown(&[]), None);
        assert_eq!(shown(&[("HTTPS_PROXY", " ")]), None);
        assert_eq!(shown(&[("http_proxy", "a:1")]), None, "it is for plain HTTP only");
        assert_eq!(shown(&[("ALL_PROXY", "socks5://a")]).unwrap(), "socks5://a:1080");
        let both = [("ALL_PROXY", "socks5://a"), ("HTTPS_PROXY", "b:3128")];
        assert_eq!(shown(&both).unwrap(), "http://b:3128");
        let both = [("https_proxy", "http://[::1]:8080/"), ("HTTPS_PROXY", "b:3128")];
        assert_eq!(shown(&both).unwrap(), "http://[::1]:8080");
    }

    #[test]
    fn what_no_proxy_lists_goes_direct() {
        let proxies = of(&[
            ("https_proxy", "p:1"),
            ("NO_PROXY", "localhost, .example.com,10.0.0.0/8,192.0.2.7,[2001:db8::]/32"),
        ]);
        for direct in
            ["localhost", "example.com", "A.Example.com", "10.9.8.7", "192.0.2.7", "2001:db8::9"]
        {
            assert_eq!(proxies.towards(direct), None, "{direct}");
        }
        for through in ["badexample.com", "11.0.0.1", "192.0.2.8", "2001:db9::1", "relay.test"] {
            assert!(proxies.towards(through).is_some(), "{through}");
        }
        assert_eq!(of(&[("https_proxy", "p:1"), ("no_proxy", "*")]).towards("x"), None);
        let all = of(&[("https_proxy", "p:1"), ("no_proxy", "0.0.0.0/0")]);
        assert_eq!(all.towards("192.0.2.1"), None);
    }

    #[test]
    fn a_password_is_decoded_and_never_shown() {
        let proxies = Proxies::explicit("http://anna:s%40cret%3a@proxy:3128").unwrap();
        let proxy = proxies.towards("relay.test").unwrap();
        let login = proxy.login.as_ref().unwrap();
        assert_eq!((login.user.as_str(), login.password.as_str()), ("anna", "s@cret:"));
        let described = proxies.described("relay.test").unwrap();
        assert!(described.ends_with("http://proxy:3128, with a user and password"), "{described}");
        assert!(!format!("{proxy} {proxy:?} {proxies:?} {described}").contains("cret"));
    }

    #[test]
    fn a_value_that_cannot_be_used_is_an_error_and_not_shown() {
        for bad in
            ["ftp://p", "https://u:geheim@p", "http://", "p:0", "p:x", "[::1", "u:%0a@p", "a b"]
        {
            let error = Proxies::explicit(bad).unwrap_err();
            assert!(!error.to_string().contains("geheim"), "{error}");
        }
    }
}
