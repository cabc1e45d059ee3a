//! Socket options.

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Sends small pieces at once, and finds a dead peer: a silent one within about 25 s, one that acknowledges nothing
/// within `unacknowledged`. What the kernel refuses is not worth a failure.
pub(crate) fn keep_alive(socket: &TcpStream, unacknowledged: Duration) {
    let keep_alive =
        TcpKeepalive::new().with_time(Duration::from_secs(10)).with_interval(Duration::from_secs(5)).with_retries(3);
    let socket = SockRef::from(socket);
    let set = socket
        .set_tcp_nodelay(true)
        .and_then(|()| socket.set_tcp_keepalive(&keep_alive))
        .and_then(|()| socket.set_tcp_user_timeout(Some(unacknowledged)));
    if let Err(error) = set {
        tracing::debug!(%error, "socket options were refused");
    }
}
