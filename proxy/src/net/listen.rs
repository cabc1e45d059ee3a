//! The ports, and the acceptor.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use modelring_process::probes::{BEAT, Heart};
use socket2::{Domain, Socket, Type};
use tokio::{sync::watch, time::sleep};

use super::{
    Error, Phase,
    thread::{Door, Thread},
};

/// Connections that the kernel keeps for us.
const BACKLOG: i32 = 4096;
/// Connections of the process, most.
const CONNECTIONS: usize = 10_000;
/// Rest after a failed accept: mostly there are no file descriptors left.
const REST: Duration = Duration::from_millis(50);

/// Binds a port here, so that port 0 works and the address is known.
pub(super) fn bind(address: SocketAddr, what: &'static str) -> Result<TcpListener, Error> {
    let listen = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    };
    listen().map_err(|source| Error::Listen { address, what, source })
}

/// What can be done about a port that cannot be had.
pub(super) fn remedy(error: &io::Error, what: &str) -> String {
    let flag = if what == "REST" { "--rest" } else { "--grpc" };
    match error.kind() {
        io::ErrorKind::AddrInUse => format!("stop the process that uses the port, or choose another one with `{flag}`"),
        io::ErrorKind::PermissionDenied => format!("choose a port above 1023 with `{flag}`"),
        _ => format!("choose another address with `{flag}`"),
    }
}

/// Starts the acceptor on a thread of its own.
pub(super) fn start<const N: usize>(
    listeners: [TcpListener; N],
    doors: Vec<Door>,
    phase: watch::Receiver<Phase>,
    heart: Heart,
) -> io::Result<Thread> {
    Thread::spawn("accept".into(), move || async move {
        let accepting = listeners.into_iter().map(|listener| accept(listener, &doors));
        let mut phase = phase;
        tokio::select! {
            _ = futures_util::future::join_all(accepting) => {}
            () = beating(&heart) => {}
            _ = phase.wait_for(|phase| *phase != Phase::Open) => {}
        }
        heart.rest();
    })
}

async fn beating(heart: &Heart) {
    loop {
        heart.beat();
        sleep(BEAT).await;
    }
}

async fn accept(listener: TcpListener, doors: &[Door]) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "cannot accept connections"),
    };
    loop {
        match listener.accept().await.and_then(|(socket, _)| socket.into_std()) {
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(REST).await;
            }
            Ok(_) if doors.iter().map(Door::connections).sum::<usize>() >= CONNECTIONS => {
                tracing::warn!(limit = CONNECTIONS, "refused a connection: too many");
            }
            Ok(socket) => {
                let emptiest = doors.iter().min_by_key(|door| (door.streams(), door.connections()));
                if emptiest.is_none_or(|door| !door.hand_in(socket)) {
                    tracing::warn!("refused a connection: its thread is too busy");
                }
            }
        }
    }
}
