//! Making a world: networks, disks, control blocks and groups, and what each node is started with.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::{Context as _, ensure};

use super::cgroup::{Controller, Group};
use super::control::Control;
use super::disk::Image;
use super::network::{Host, Switch};
use super::node::{FOUNDERS_FLAG, Node};
use super::place::Place;
use super::samples::{Sampler, Samples};
use super::sys;
use super::{Capabilities, Capability, Clock, Plan, Storage, World};

/// Size of a node's disk. Its image is sparse.
const DISK_BYTES: u64 = 1 << 30;
/// The ports of every node.
const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;
/// Bytes of the peers' secret.
const SECRET_BYTES: usize = 32;

/// Makes a world in which no node runs yet.
pub(super) fn found(plan: &Plan, capabilities: &Capabilities) -> anyhow::Result<World> {
    ensure!((1..=Host::NODES_MAX).contains(&plan.nodes), "a world has 1 to {} nodes", Host::NODES_MAX);
    fs::create_dir_all(plan.directory.join("nodes"))?;
    // Nodes have working directories of their own.
    let plan = &Plan { directory: fs::canonicalize(&plan.directory)?, ..plan.clone() };
    let folder = Folder::create(plan.directory.join("world"))?;
    let switch = match capabilities.has(Capability::Network) {
        true => Some(Switch::start(plan.nodes, plan.seed).context("the network cannot be made")?),
        false => None,
    };
    let clock = Clock::start();
    let founding = Founding {
        plan,
        capabilities,
        switch: switch.as_ref(),
        loopback: loopback(),
        samples: Arc::new(Samples::new(clock)),
        secret: write_secret(&folder.0)?,
        folder: &folder.0,
    };
    let nodes = founding.nodes()?;
    let samples = founding.samples;
    let place = |host| switch.as_ref().map_or_else(Place::default, |switch| switch.place(host).clone());
    let control = place(Host::CONTROL);
    let sampler = Sampler::start(&nodes, &control)?;
    let clients = place(Host::CLIENTS);
    Ok(World { _sampler: sampler, nodes, switch, _folder: folder, clients, control, samples, clock })
}

/// The folder of what only a living world needs. Dropping it removes it with all that is in it.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    fn create(path: PathBuf) -> anyhow::Result<Folder> {
        // What a run that was killed left there is not this one's.
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        for inner in ["disks", "shim"] {
            fs::create_dir_all(path.join(inner))?;
        }
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} stays: {error}", self.0.display());
        }
    }
}

/// What all nodes are made from.
struct Founding<'a> {
    plan: &'a Plan,
    capabilities: &'a Capabilities,
    switch: Option<&'a Switch>,
    loopback: [u8; 3],
    samples: Arc<Samples>,
    secret: String,
    folder: &'a Path,
}

impl Founding<'_> {
    /// All nodes. They are made side by side, since most of the time goes into file systems.
    fn nodes(&self) -> anyhow::Result<Vec<Arc<Node>>> {
        thread::scope(|scope| {
            let made: Vec<_> =
                (1..=self.plan.nodes).map(|number| scope.spawn(move || self.node(number))).collect();
            made.into_iter()
                .map(|thread| {
                    let node = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                    node.map(Arc::new)
                })
                .collect()
        })
    }

    fn node(&self, number: usize) -> anyhow::Result<Node> {
        let plan = self.plan;
        let name = format!("node{number}");
        let point = self.folder.join("disks").join(&name);
        let disk = match self.capabilities.has(Capability::Disk) {
            true => Some(Image::create(self.backing()?, point.clone())?),
            false => None,
        };
        let control = match (&plan.shim, self.capabilities.has(Capability::Shim)) {
            (Some(shim), true) => Some(Control::create(shim, self.folder.join("shim").join(&name))?),
            _ => None,
        };
        let group = |controller, capability| match self.capabilities.has(capability) {
            true => Group::create(controller, &name).map(Some),
            false => Ok(None),
        };
        let data_dir = disk.as_ref().map_or(point, Image::data_dir);
        Ok(Node {
            number,
            client: SocketAddr::new(self.address(number), CLIENT_PORT),
            peer: self.peer(number),
            place: self.switch.map_or_else(Place::default, |switch| switch.place(Host::node(number)).clone()),
            cpu: group(Controller::Cpu, Capability::CpuLimit)?,
            io: group(Controller::Io, Capability::DiskLimit)?,
            log: plan.directory.join("nodes").join(format!("{name}.log")),
            arguments: self.arguments(number, &data_dir),
            disk,
            control,
            data_dir,
            program: plan.program.clone(),
            canaries: plan.canaries.join(","),
            samples: Arc::clone(&self.samples),
            running: Mutex::default(),
        })
    }

    /// The command line of a node. A log in small segments shows many of them and fills no disk.
    fn arguments(&self, number: usize, data_dir: &Path) -> Vec<String> {
        let founders: Vec<String> =
            (1..=self.plan.nodes).map(|number| format!("node{number}={}", self.peer(number))).collect();
        let mut arguments = vec![
            "serve".to_owned(),
            format!("--name=node{number}"),
            format!("--data-dir={}", data_dir.display()),
            format!("--listen-client={}:{CLIENT_PORT}", self.address(number)),
            format!("--listen-peer={}", self.peer(number)),
            format!("{FOUNDERS_FLAG}{}", founders.join(",")),
            format!("--peer-secret-file={}", self.secret),
            "--log-segment-size=16MiB".to_owned(),
            // Rot shows soon.
            "--scrub-interval=4s".to_owned(),
        ];
        arguments.extend(self.plan.flags.iter().cloned());
        arguments
    }

    fn peer(&self, number: usize) -> SocketAddr {
        SocketAddr::new(self.address(number), PEER_PORT)
    }

    fn address(&self, number: usize) -> IpAddr {
        let host = Host::node(number);
        match self.switch {
            Some(_) => host.address().into(),
            None => {
                let [first, second, third] = self.loopback;
                Ipv4Addr::new(first, second, third, host.0).into()
            }
        }
    }

    /// A file without a name for a node's disk.
    fn backing(&self) -> io::Result<File> {
        let file = match self.plan.storage {
            Storage::Memory => sys::memory_file("ringfence-jepsen-disk")?,
            Storage::Disk => {
                let mut options = File::options();
                options.read(true).write(true).custom_flags(libc::O_TMPFILE).open(&self.plan.directory)?
            }
        };
        file.set_len(DISK_BYTES)?;
        Ok(file)
    }
}

/// The network of a world on loopback, of which all of 127.0.0.0/8 is: the first three numbers of its addresses. Another one
/// than that of other worlds of this process, and, but for a rare one, of other processes.
fn loopback() -> [u8; 3] {
    let [_, _, high, low] = (std::process::id() ^ (sys::serial() << 9)).to_be_bytes();
    // The upper half keeps clear of 127.0.0.1 and its neighbours.
    [127, high | 128, low]
}

/// Draws the secret that nodes share; returns its file's path.
fn write_secret(directory: &Path) -> anyhow::Result<String> {
    let mut bytes = [0; SECRET_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = directory.join("peer-secret");
    let mut file = File::options().create(true).write(true).truncate(true).mode(0o600).open(&path)?;
    file.write_all(text.as_bytes())?;
    path.into_os_string().into_string().ok().context("the run's directory has no name in UTF-8")
}
