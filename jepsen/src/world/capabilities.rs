//! What this machine lets the harness do.

use std::fmt;
use std::fs;

use anyhow::ensure;

use super::cgroup::{Controller, Group};
use super::disk::Image;
use super::network::Switch;
use super::sys;

/// Size of the image that is made to see whether one can be.
const PROBE_BYTES: u64 = 64 << 20;

/// Something that a fault may need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    /// A network of one's own: namespaces and TUN devices.
    Network,
    /// A file system of one's own for each node, whose power can be cut, which can be full or turn read-only.
    Disk,
    /// Disks that can be frozen and thawed.
    Freeze,
    /// A shim in the server that rules its clocks and syncs.
    Shim,
    /// Rationed processor time.
    CpuLimit,
    /// Limited writes to a disk.
    DiskLimit,
}

impl Capability {
    /// All of them.
    pub const ALL: [Capability; 6] = [
        Capability::Network,
        Capability::Disk,
        Capability::Freeze,
        Capability::Shim,
        Capability::CpuLimit,
        Capability::DiskLimit,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Capability::Network => "network",
            Capability::Disk => "disk",
            Capability::Freeze => "freeze",
            Capability::Shim => "shim",
            Capability::CpuLimit => "cpu-limit",
            Capability::DiskLimit => "disk-limit",
        }
    }

    /// What it is made of.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Capability::Network => "network namespaces and TUN devices",
            Capability::Disk => "loop devices, mount namespaces, ext4 and FS_IOC_SHUTDOWN",
            Capability::Freeze => "FIFREEZE and fsfreeze",
            Capability::Shim => "LD_PRELOAD of a library for glibc on x86-64",
            Capability::CpuLimit => "the control groups' cpu controller",
            Capability::DiskLimit => "the control groups' blkio or io controller",
        }
    }

    fn probe(self) -> anyhow::Result<()> {
        match self {
            Capability::Network => Switch::start(1, 0).map(drop).map_err(Into::into),
            Capability::Disk => probe_disk(),
            Capability::Freeze => probe_freeze(),
            Capability::Shim => {
                let fits = cfg!(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"));
                ensure!(fits, "this harness was built for another system");
                Ok(())
            }
            Capability::CpuLimit => {
                Group::create(Controller::Cpu, "probe")?.limit_cpu(Some(50)).map_err(Into::into)
            }
            Capability::DiskLimit => Group::create(Controller::Io, "probe").map(drop),
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What this machine can do, and why it cannot do the rest.
#[derive(Debug, Clone)]
pub struct Capabilities {
    probed: Vec<(Capability, Result<(), String>)>,
}

impl Capabilities {
    /// Tries everything once, for real.
    #[must_use]
    pub fn probe() -> Capabilities {
        let probe = |capability: Capability| match capability {
            Capability::Shim => capability.probe(),
            _ if !sys::is_root() => Err(anyhow::anyhow!("this needs root")),
            _ => capability.probe(),
        };
        let probe = |capability| (capability, probe(capability).map_err(|error| format!("{error:#}")));
        Capabilities { probed: Capability::ALL.into_iter().map(probe).collect() }
    }

    /// None at all, for this reason.
    #[must_use]
    pub fn none(why: &str) -> Capabilities {
        Capabilities { probed: Capability::ALL.map(|capability| (capability, Err(why.to_owned()))).to_vec() }
    }

    /// The same without all but these.
    #[must_use]
    pub fn only(mut self, kept: &[Capability]) -> Capabilities {
        for (capability, result) in &mut self.probed {
            if !kept.contains(capability) && result.is_ok() {
                *result = Err("it was left out on purpose".to_owned());
            }
        }
        self
    }

    /// Whether there is this capability.
    #[must_use]
    pub fn has(&self, capability: Capability) -> bool {
        self.why_not(capability).is_none()
    }

    /// Why there is no such capability; `None`: there is.
    #[must_use]
    pub fn why_not(&self, capability: Capability) -> Option<&str> {
        let (_, result) = self.probed.iter().find(|(probed, _)| *probed == capability)?;
        result.as_ref().err().map(String::as_str)
    }

    /// All that are missing, each with the reason.
    pub fn missing(&self) -> impl Iterator<Item = (Capability, &str)> {
        Capability::ALL.into_iter().filter_map(|capability| Some((capability, self.why_not(capability)?)))
    }
}

/// Does something to a small disk, which is gone afterwards.
fn with_disk(work: impl FnOnce(&Image) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let point = std::env::temp_dir();
    let point = point.join(format!("ringfence-jepsen-probe-{}-{}", std::process::id(), sys::serial()));
    let backing = sys::memory_file("ringfence-jepsen-probe")?;
    backing.set_len(PROBE_BYTES)?;
    let result = Image::create(backing, point.clone()).and_then(|image| work(&image));
    // Where it was never made there is nothing to remove.
    let _ = fs::remove_dir(point);
    result
}

fn probe_disk() -> anyhow::Result<()> {
    with_disk(|image| {
        image.cut_power(0.0, 0)?;
        // It fails if the cut took nothing.
        image.restore()?;
        Ok(())
    })
}

fn probe_freeze() -> anyhow::Result<()> {
    with_disk(|image| {
        image.freeze()?;
        image.thaw()
    })
}
