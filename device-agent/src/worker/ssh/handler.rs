//! What the SSH library asks of us, one call per message of the client.
//!
//! Everything here runs inside the library's one loop: a call that waits holds
//! up the whole connection. So calls decide and hand over; the waiting is done
//! in the channels' tasks. The exceptions are meant: the gate's event, and a
//! queue whose spill is full.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::Certificate;
use russh::server::{
    Auth, ChannelOpenHandle, Handler as SshHandler, Msg, PublicKeyOffer, Response, Session,
    VerifiedPublicKey,
};
use russh::{Channel, ChannelId, ChannelOpenFailure, ChannelWriteHalf, Pty, Sig};
use tokio::time::sleep;

use super::cert::shown;
use super::channel::{Asked, Job, client_signal};
use super::environment::ClientEnv;
use super::forward::{Target, short};
use super::pump::STDERR;
use super::registry::Entry;
use super::reverse::{self, Listening};
use super::{Shared, attach};
use crate::worker::gate::{Admitted, Denied, Gate, Request};
use crate::worker::limits::{COMMAND_MAX, LISTENERS_MAX, TERM_MAX};
use crate::worker::pty::{self, Terminal};

/// `SSH_OPEN_ADMINISTRATIVELY_PROHIBITED` (RFC 4254, section 5.1), with our own
/// description.
pub(super) fn prohibited(reason: &impl ToString) -> ChannelOpenFailure {
    ChannelOpenFailure::Other { code: 1, reason: reason.to_string() }
}

/// Time between a refusal's reason and the refusal itself.
const REFUSAL_LEAD: Duration = Duration::from_millis(100);

/// A session channel no program runs on yet.
pub(super) struct Prepared {
    entry: Arc<Entry>,
    client: ChannelWriteHalf<Msg>,
    env: ClientEnv,
    pub(super) terminal: Option<(Terminal, Admitted)>,
    agent: Option<String>,
}

pub(super) struct Handler {
    pub(super) shared: Arc<Shared>,
    /// Made by a verified identity; without it nothing opens.
    pub(super) gate: Option<Arc<Gate>>,
    /// The first user name asked for; another one later is refused.
    pub(super) asked_user: Option<String>,
    pub(super) prepared: HashMap<u32, Prepared>,
    /// Remote forwards, by the address and port the client knows them under; a
    /// socket's port is 0.
    listeners: HashMap<(String, u32), Listening>,
    /// The forwarded ssh-agent's socket, one for the connection.
    agent: Option<(Listening, String)>,
}

impl Handler {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            gate: None,
            prepared: HashMap::new(),
            asked_user: None,
            listeners: HashMap::new(),
            agent: None,
        }
    }

    /// Asks the gate for a request on a channel.
    async fn ask(&self, channel: ChannelId, request: Request<'_>) -> Result<Admitted, Denied> {
        match &self.gate {
            Some(gate) => gate.admit(channel.number(), request).await,
            None => Err(Denied::because("nobody is authenticated")),
        }
    }

    /// Refuses a shell, command or subsystem so that the engineer sees why:
    /// clients give up at the failure, and show only what came well before it.
    pub(super) fn refuse_program(&self, channel: ChannelId, ready: Prepared, denied: Denied) {
        let shared = self.shared.clone();
        self.shared.spawn(async move {
            let line = format!("belay: {denied}\r\n").into_bytes();
            drop(ready.client.extended_data_bytes(STDERR, line).await);
            sleep(REFUSAL_LEAD).await;
            if let Some(handle) = shared.handle.get()
                && handle.channel_failure(channel).await.is_err()
            {
                tracing::debug!("the client did not wait for its refusal");
            }
            shared.registry.remove(channel.number());
        });
    }

    /// Leave for a listener, where there is room for one.
    async fn ask_listener(&self, name: &str) -> Option<(Arc<Gate>, Admitted)> {
        let gate = self.gate.clone()?;
        if self.listeners.len() >= LISTENERS_MAX {
            tracing::info!(%name, "too many listeners");
            return None;
        }
        let leave = gate.admit(reverse::NO_CHANNEL, Request::Reverse(name)).await.ok()?;
        Some((gate, leave))
    }

    pub(super) async fn start(
        &mut self,
        channel: ChannelId,
        request: Request<'_>,
        asked: Asked,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        // RFC 4254, section 6.5: only one of them per channel.
        let Some(ready) = self.prepared.remove(&channel.number()) else {
            return session.channel_failure(channel);
        };
        let leave = match self.ask(channel, request).await {
            Ok(leave) if matches!(asked, Asked::Sftp) && !self.shared.account().ordinary_shell => {
                drop(leave);
                let denied = Denied::because(
                    "this login's shell is not one of /etc/shells, so it has no SFTP",
                );
                self.refuse_program(channel, ready, denied);
                return Ok(());
            }
            Ok(leave) => leave,
            Err(denied) => {
                self.refuse_program(channel, ready, denied);
                return Ok(());
            }
        };
        session.channel_success(channel)?;
        let Prepared { entry, client, env, terminal, agent } = ready;
        let shared = self.shared.clone();
        let job = Job { shared, entry, client, leave, asked, env, terminal, agent };
        self.shared.spawn(job.run());
        Ok(())
    }
}

/// To the channel's standard error, where the engineer sees it.
fn complain(
    channel: ChannelId,
    reason: &impl ToString,
    session: &mut Session,
) -> Result<(), russh::Error> {
    let line = format!("belay: {}\r\n", reason.to_string());
    session.extended_data(channel, STDERR, line.into_bytes())
}

impl SshHandler for Handler {
    type Error = russh::Error;

    async fn auth_none(&mut self, user: &str) -> Result<Auth, Self::Error> {
        self.bind_user(user);
        Ok(Auth::reject())
    }

    async fn auth_publickey_offered(
        &mut self,
        _user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(self.judge_offer(&offer))
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(self.judge_key(user, key.public_key).await)
    }

    async fn auth_openssh_certificate(
        &mut self,
        user: &str,
        certificate: &Certificate,
    ) -> Result<Auth, Self::Error> {
        Ok(self.judge_certificate(user, certificate).await)
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _user: &str,
        _submethods: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        Ok(self.show_refusal(response.is_some()))
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        if self.gate.is_none() {
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            return Ok(());
        }
        let id = channel.id().number();
        match self.shared.registry.open(id) {
            Ok(entry) => {
                // What arrives comes to `data` below, not through the half
                // dropped here.
                let (_, client) = channel.split();
                let (env, terminal, agent) = (ClientEnv::default(), None, None);
                self.prepared.insert(id, Prepared { entry, client, env, terminal, agent });
                reply.accept().await;
            }
            Err(full) => reply.reject(short(&full)).await,
        }
        Ok(())
    }

    async fn channel_open_x11(
        &mut self,
        channel: Channel<Msg>,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Some(gate) = &self.gate
            && let Err(denied) = gate.admit(channel.id().number(), Request::X11).await
        {
            reply.reject(prohibited(&denied)).await;
        }
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host_to_connect: &str,
        port_to_connect: u32,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        let target = Target::Address(host_to_connect.to_owned(), port_to_connect);
        self.open_forward(channel, target, reply).await;
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        socket_path: &str,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.open_forward(channel, Target::Socket(socket_path.to_owned()), reply).await;
        Ok(())
    }

    /// The client took a channel of ours. Its queue is made here, before the
    /// first byte can arrive; the task that asked for the channel finds it.
    async fn channel_open_confirmation(
        &mut self,
        id: ChannelId,
        _max_packet_size: u32,
        _window_size: u32,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Err(full) = self.shared.registry.open(id.number()) {
            tracing::info!(%full, "a connection to the client is closed again");
        }
        Ok(())
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        let name = format!("{}:{port}", shown(address));
        let Some((gate, leave)) = self.ask_listener(&name).await else { return Ok(false) };
        let bound = reverse::listen_tcp(&self.shared, &gate, leave, address, *port).await;
        match bound {
            Ok((listening, got)) => {
                *port = got;
                self.listeners.insert((address.to_owned(), got), listening);
                Ok(true)
            }
            Err(error) => {
                tracing::info!(%name, %error, "no listener");
                Ok(false)
            }
        }
    }

    async fn cancel_tcpip_forward(
        &mut self,
        address: &str,
        port: u32,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        Ok(self.listeners.remove(&(address.to_owned(), port)).is_some())
    }

    async fn streamlocal_forward(
        &mut self,
        socket_path: &str,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        let name = shown(socket_path);
        let Some((gate, leave)) = self.ask_listener(&name).await else { return Ok(false) };
        match reverse::listen_socket(&self.shared, &gate, leave, socket_path) {
            Ok(listening) => {
                self.listeners.insert((socket_path.to_owned(), 0), listening);
                Ok(true)
            }
            Err(error) => {
                tracing::info!(%name, %error, "no listener");
                Ok(false)
            }
        }
    }

    async fn cancel_streamlocal_forward(
        &mut self,
        socket_path: &str,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        Ok(self.listeners.remove(&(socket_path.to_owned(), 0)).is_some())
    }

    async fn agent_request(
        &mut self,
        channel: ChannelId,
        _session: &mut Session,
    ) -> Result<bool, Self::Error> {
        let Some(gate) = self.gate.clone() else { return Ok(false) };
        if self.agent.is_none() {
            // A refusal is no reason to end the session: ask without complaint.
            let Ok(leave) = gate.admit(channel.number(), Request::Agent).await else {
                return Ok(false);
            };
            match reverse::listen_agent(&self.shared, &gate, leave) {
                Ok(agent) => self.agent = Some(agent),
                Err(error) => {
                    tracing::warn!(%error, "no socket for the forwarded agent");
                    return Ok(false);
                }
            }
        }
        let (Some((_, path)), Some(ready)) =
            (&self.agent, self.prepared.get_mut(&channel.number()))
        else {
            return Ok(false);
        };
        ready.agent = Some(path.clone());
        Ok(true)
    }

    async fn data(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(entry) = self.shared.registry.find(channel.number()) else { return Ok(()) };
        if let Err(overflow) = entry.queue.push(data, self.shared.registry.is_single()).await {
            tracing::warn!(channel = channel.number(), %overflow, "channel closed");
            complain(channel, &overflow, session)?;
            entry.queue.abandon();
            entry.close();
            session.close(channel)?;
        }
        Ok(())
    }

    async fn channel_eof(
        &mut self,
        channel: ChannelId,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Some(entry) = self.shared.registry.find(channel.number()) {
            entry.queue.end();
        }
        Ok(())
    }

    async fn channel_close(
        &mut self,
        channel: ChannelId,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        let number = channel.number();
        if let Some(entry) = self.shared.registry.find(number) {
            entry.close();
        }
        if self.prepared.remove(&number).is_some() {
            // No task will ever remove it.
            self.shared.registry.remove(number);
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "the library's signature")]
    async fn pty_request(
        &mut self,
        channel: ChannelId,
        term: &str,
        col_width: u32,
        row_height: u32,
        pix_width: u32,
        pix_height: u32,
        modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let free =
            self.prepared.get(&channel.number()).is_some_and(|ready| ready.terminal.is_none());
        if !free || term.len() > TERM_MAX || term.contains('\0') {
            return session.channel_failure(channel);
        }
        let leave = match self.ask(channel, Request::Terminal(term)).await {
            Ok(leave) => leave,
            Err(denied) => {
                complain(channel, &denied, session)?;
                return session.channel_failure(channel);
            }
        };
        let terminal = Terminal {
            term: term.to_owned(),
            size: pty::window(col_width, row_height, pix_width, pix_height),
            modes: modes.iter().map(|(mode, value)| (*mode as u8, *value)).collect(),
        };
        if let Some(ready) = self.prepared.get_mut(&channel.number()) {
            ready.terminal = Some((terminal, leave));
        }
        session.channel_success(channel)
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        variable_name: &str,
        variable_value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let ready = self.prepared.get_mut(&channel.number());
        let more = &self.shared.terms().accept_env;
        if ready.is_some_and(|ready| ready.env.set(variable_name, variable_value, more)) {
            session.channel_success(channel)
        } else {
            session.channel_failure(channel)
        }
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _single_connection: bool,
        _x11_auth_protocol: &str,
        _x11_auth_cookie: &str,
        _x11_screen_number: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        // Clients with ForwardX11 ask for it always; a failure is enough of an
        // answer and the session goes on.
        if let Some(gate) = &self.gate
            && gate.admit(channel.number(), Request::X11).await.is_err()
        {
            return session.channel_failure(channel);
        }
        Ok(())
    }

    async fn shell_request(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(joins) = &self.shared.session.joins else {
            return self.start(channel, Request::Shell, Asked::Shell, session).await;
        };
        let words = joins.words();
        self.start(channel, Request::Join(&words), Asked::Join, session).await
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if data.len() > COMMAND_MAX || data.contains(&0) {
            complain(channel, &"the command is too long, or has a NUL in it", session)?;
            return session.channel_failure(channel);
        }
        let text = String::from_utf8_lossy(data).into_owned();
        let command = OsString::from_vec(data.to_vec());
        self.start(channel, Request::Exec(&text), Asked::Command(command), session).await
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Some(named) = attach::named(name)
            && self.shared.terminals.keeps()
        {
            return self.start_attach(channel, named, session).await;
        }
        let request = if name == "sftp" { Request::Sftp } else { Request::Unknown(name) };
        self.start(channel, request, Asked::Sftp, session).await
    }

    async fn window_change_request(
        &mut self,
        channel: ChannelId,
        col_width: u32,
        row_height: u32,
        pix_width: u32,
        pix_height: u32,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        let size = pty::window(col_width, row_height, pix_width, pix_height);
        if let Some(entry) = self.shared.registry.find(channel.number()) {
            entry.size.send_replace(Some(size));
        }
        Ok(())
    }

    async fn signal(
        &mut self,
        channel: ChannelId,
        signal: Sig,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        match (self.shared.registry.find(channel.number()), client_signal(&signal)) {
            (Some(entry), Some(number)) => entry.signal(number),
            (_, None) => tracing::debug!(?signal, "a signal nobody here knows"),
            (None, Some(_)) => {}
        }
        Ok(())
    }
}
