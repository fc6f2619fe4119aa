//! Socket buffers. Best effort: too small a buffer costs speed, not correctness.

use std::net::UdpSocket;

use rustix::net::sockopt;

/// Asks for buffers of `bytes` each way, past the system's bound where we may (CAP_NET_ADMIN).
pub(super) fn enlarge(socket: &UdpSocket, bytes: usize) {
    let forced = sockopt::set_socket_recv_buffer_size_force(socket, bytes);
    if forced.is_err()
        && let Err(error) = sockopt::set_socket_recv_buffer_size(socket, bytes)
    {
        tracing::debug!(%error, "cannot enlarge the receive buffer");
    }
    if let Err(error) = sockopt::set_socket_send_buffer_size(socket, bytes) {
        tracing::debug!(%error, "cannot enlarge the send buffer");
    }
}
