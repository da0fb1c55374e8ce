//! The network between hosts: links with delays, that can be cut in either direction, and the connections over them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use ringfence_consensus::rt::{self, simulated as executor};
use ringfence_consensus::{Connection, Network};
use tokio::sync::mpsc;

use super::stream::{Arrival, Errand, ReadEnd, Stream, WriteEnd};
use executor::Host;

/// Connections that wait to be accepted, as a kernel keeps them.
const BACKLOG: usize = 64;
/// A cut shorter than this is healed by retransmission; a connection over a longer one is given up by one side.
const RETRANSMISSION_SECONDS: u64 = 20;
/// After a cut the next retransmission comes up to this much later.
const RETRANSMISSION_PAUSE_NANOSECONDS: u64 = 400_000_000;

/// How long bytes take over a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The shortest time, in microseconds.
    pub min: u64,
    /// The longest time, in microseconds.
    pub max: u64,
    /// Bytes in a millisecond.
    pub bytes: u64,
}

impl Pace {
    /// Nodes in one place.
    pub const LOCAL: Pace = Pace { min: 50, max: 600, bytes: 100_000 };
}

/// The hosts' network. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Fabric(Arc<Mutex<Links>>);

#[derive(Debug, Default)]
struct Links {
    /// Who listens at which address, in which life.
    mailboxes: BTreeMap<String, (Host, mpsc::Sender<Connection>)>,
    /// From whom to whom nothing passes, and for how many reasons.
    cut: BTreeMap<(Host, Host), u32>,
    paces: BTreeMap<(Host, Host), Pace>,
    /// Hosts without power: they neither answer nor say that they do not.
    dark: BTreeSet<Host>,
    /// Streams by writer and reader.
    streams: Vec<(Host, Host, Weak<Stream>)>,
    /// Grows with each change of `cut` and `dark`.
    heal: Arc<tokio::sync::Notify>,
    /// What happened, for the report.
    counts: NetworkCounts,
}

/// What the network did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetworkCounts {
    /// Deliveries of bytes to a reader.
    pub deliveries: u64,
    /// Bytes delivered.
    pub bytes: u64,
    /// Deliveries, connections and questions that a cut held up.
    pub held_up: u64,
    /// Connections opened.
    pub connections: u64,
    /// Connections reset.
    pub resets: u64,
}

/// One host's place in the network, for one life of its process.
#[derive(Debug)]
pub struct Port {
    fabric: Fabric,
    host: Host,
    mailbox: tokio::sync::Mutex<mpsc::Receiver<Connection>>,
}

impl Fabric {
    /// A process begins to listen at an address.
    #[must_use]
    pub fn listen(&self, host: Host, address: &str) -> Arc<Port> {
        let (sender, mailbox) = mpsc::channel(BACKLOG);
        let mut links = self.0.lock();
        links.dark.remove(&host);
        links.mailboxes.insert(address.to_owned(), (host, sender));
        Arc::new(Port { fabric: self.clone(), host, mailbox: mailbox.into() })
    }

    /// A host loses its power: whoever talks to it hears nothing more, not even an end.
    pub fn darken(&self, host: Host) {
        let mut links = self.0.lock();
        links.dark.insert(host);
        for (from, to, stream) in &links.streams {
            match stream.upgrade() {
                Some(stream) if *from == host => stream.lose_writer(),
                Some(stream) if *to == host => stream.lose_reader(),
                _ => {}
            }
        }
    }

    /// Nothing passes from any of `from` to any of `to`.
    pub fn cut(&self, from: &[Host], to: &[Host]) {
        let mut links = self.0.lock();
        for pair in pairs(from, to) {
            *links.cut.entry(pair).or_default() += 1;
        }
    }

    /// Takes a cut back.
    pub fn mend(&self, from: &[Host], to: &[Host]) {
        let mut links = self.0.lock();
        for pair in pairs(from, to) {
            let reasons = links.cut.get_mut(&pair).expect("what is mended was cut");
            *reasons -= 1;
            if *reasons == 0 {
                links.cut.remove(&pair);
            }
        }
        links.heal.notify_waiters();
    }

    /// Bytes from one host to another take this time; none: the ordinary one.
    pub fn set_pace(&self, from: Host, to: Host, pace: Option<Pace>) {
        let mut links = self.0.lock();
        match pace {
            Some(pace) => links.paces.insert((from, to), pace),
            None => links.paces.remove(&(from, to)),
        };
    }

    /// Breaks all connections between two hosts. Returns how many streams that were.
    pub fn reset(&self, a: Host, b: Host) -> u64 {
        let streams: Vec<Arc<Stream>> = {
            let links = self.0.lock();
            let between =
                links.streams.iter().filter(|(from, to, _)| (*from, *to) == (a, b) || (*from, *to) == (b, a));
            between.filter_map(|(_, _, stream)| stream.upgrade()).collect()
        };
        for stream in &streams {
            stream.reset();
        }
        self.0.lock().counts.resets += streams.len() as u64;
        streams.len() as u64
    }

    /// What the network did so far.
    #[must_use]
    pub fn counts(&self) -> NetworkCounts {
        self.0.lock().counts
    }

    /// The true time at which bytes that leave now arrive.
    fn arrival(&self, from: Host, to: Host, bytes: usize) -> u64 {
        let pace = self.0.lock().paces.get(&(from, to)).copied().unwrap_or(Pace::LOCAL);
        let spread = executor::random_below((pace.max - pace.min) * 1_000 + 1);
        executor::true_time() + pace.min * 1_000 + spread + bytes as u64 * 1_000_000 / pace.bytes
    }

    /// Takes a packet's time from one host to another, and waits as long as it cannot pass.
    pub async fn pass(&self, from: Host, to: Host) {
        sleep_until(self.arrival(from, to, 0)).await;
        self.wait_open(from, to).await;
    }

    /// Waits while the link is cut. Returns whether it was.
    async fn wait_open(&self, from: Host, to: Host) -> bool {
        let mut held_up = false;
        loop {
            let healed = {
                let mut links = self.0.lock();
                if !links.cut.contains_key(&(from, to)) && !links.dark.contains(&to) {
                    return held_up;
                }
                links.counts.held_up += u64::from(!held_up);
                links.heal.clone()
            };
            held_up = true;
            // A host that comes back to light notifies nobody: look again, as retransmission does.
            let _ = rt::timeout(Duration::from_millis(200), healed.notified()).await;
        }
    }

    /// The two streams of a connection, near end first, and the tasks that carry their bytes.
    fn pair(&self, near: Host, far: Host) -> [(WriteEnd, ReadEnd); 2] {
        let streams: [Arc<Stream>; 2] = Default::default();
        let routes = [(near, far), (far, near)];
        self.0.lock().streams.retain(|(_, _, stream)| stream.strong_count() > 0);
        for ((from, to), (stream, other)) in
            routes.into_iter().zip([(&streams[0], &streams[1]), (&streams[1], &streams[0])])
        {
            self.0.lock().streams.push((from, to, Arc::downgrade(stream)));
            let carrying = self.clone().carry(from, to, stream.clone(), Arc::downgrade(other));
            drop(executor::spawn_on(Host::WORLD, carrying));
        }
        let [there, back] = streams;
        let ends = |stream: Arc<Stream>, from: Host, to: Host| {
            let fabric = self.clone();
            let arrival: Arrival = Arc::new(move |bytes| fabric.arrival(from, to, bytes));
            (WriteEnd::new(stream.clone(), arrival), ReadEnd(stream))
        };
        [ends(there, near, far), ends(back, far, near)]
    }

    async fn carry(self, from: Host, to: Host, stream: Arc<Stream>, other: Weak<Stream>) {
        let reset = || {
            stream.reset();
            if let Some(other) = other.upgrade() {
                other.reset();
            }
        };
        loop {
            let errand = stream.errand().await;
            match errand {
                Errand::Bring(when) => sleep_until(when).await,
                Errand::End => sleep_until(self.arrival(from, to, 0)).await,
                Errand::Leave => return,
            }
            let before = executor::true_time();
            let held_up = self.wait_open(from, to).await;
            if stream.is_reader_gone() {
                // A machine that has been without power knows nothing of the connection, and says so.
                return reset();
            }
            if held_up {
                let waited = executor::true_time() - before;
                if waited > RETRANSMISSION_SECONDS * 1_000_000_000 {
                    return reset();
                }
                let pause = RETRANSMISSION_PAUSE_NANOSECONDS.min(waited);
                sleep_until(executor::true_time() + executor::random_below(pause + 1)).await;
            }
            if matches!(errand, Errand::End) {
                return stream.end();
            }
            let bytes = stream.bring(executor::true_time()) as u64;
            let link = u64::from(from.0) << 32 | u64::from(to.0);
            executor::note([u64::MAX, link, bytes], format_args!("{} -> {}: {bytes} bytes", from.0, to.0));
            let counts = &mut self.0.lock().counts;
            counts.deliveries += 1;
            counts.bytes += bytes;
        }
    }
}

fn pairs(from: &[Host], to: &[Host]) -> impl Iterator<Item = (Host, Host)> {
    from.iter().flat_map(|from| to.iter().map(|to| (*from, *to))).filter(|(from, to)| from != to)
}

async fn sleep_until(true_time: u64) {
    let now = executor::true_time();
    // The world's clock is true, so a span of it is one of true time; whoever waits on another host counts on its own.
    rt::sleep(Duration::from_nanos(true_time.saturating_sub(now))).await;
}

impl Network for Port {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Connection>> {
        Box::pin(async move {
            let fabric = &self.fabric;
            let known = fabric.0.lock().mailboxes.get(address).cloned();
            let (peer, _) = known.ok_or(io::ErrorKind::ConnectionRefused)?;
            fabric.pass(self.host, peer).await;
            // Whoever listens there now, which may be another life of the process.
            let listening = fabric.0.lock().mailboxes.get(address).cloned();
            let (_, mailbox) = listening.ok_or(io::ErrorKind::ConnectionRefused)?;
            let [(near_writer, far_reader), (far_writer, near_reader)] = fabric.pair(self.host, peer);
            let far = Connection {
                reader: Box::new(far_reader),
                writer: Box::new(far_writer),
                remote: format!("host {}", self.host.0),
            };
            let accepted = mailbox.send(far).await;
            // The answer, be it a refusal, comes back the same way.
            fabric.pass(peer, self.host).await;
            accepted.map_err(|_| io::ErrorKind::ConnectionRefused)?;
            fabric.0.lock().counts.connections += 1;
            Ok(Connection {
                reader: Box::new(near_reader),
                writer: Box::new(near_writer),
                remote: address.to_owned(),
            })
        })
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            let mut mailbox = self.mailbox.lock().await;
            mailbox.recv().await.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
        })
    }
}
