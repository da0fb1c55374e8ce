//! Rot: bits of a stopped node's files flip. A node that finds its log corrupt must say so and not start; then its log is put
//! back as it was, since the way back without it (to join anew) is yet to come. One that finds its state corrupt must say so,
//! and have another one from its peers.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::process::start;
use super::target::{Target, any};
use super::{Effect, Family, Healing, Nemesis, Strike, last_exit};
use crate::world::{Capability, World};

const NEEDS: &[Capability] = &[];
/// How long a node may take to end or to serve. A busy machine is slow.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// How long a node may go on with a rotten state file until it has found out: scrubs come every few seconds here.
const FINDING_MAX: Duration = Duration::from_secs(20);
/// How long its state may take to be rebuilt.
const REBUILDING_MAX: Duration = Duration::from_secs(40);
/// The exit codes with which a node names what is corrupt.
const LOG_CORRUPT: i32 = 14;
const STATE_CORRUPT: i32 = 15;
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// The log's unit; each batch begins at a multiple of it.
const LOG_BLOCK: usize = 512;
/// A batch's header, of which bytes 12..16 tell the length of what follows, and 16..24 the segment that it was written to.
const BATCH_HEADER: usize = 56;
const BATCH_MAGIC: &[u8] = b"RFB1";
const SEGMENT_MAGIC: &[u8] = b"RFWALSEG";
/// Pages of the state file and of snapshots; one in so many is hit.
const PAGE: usize = 4_096;
pub(super) const PAGE_SHARE: u32 = 4;

/// All of this file.
pub(super) const ALL: &[Nemesis] = &[
    Nemesis::new(
        "rot-log",
        Family::Disk,
        NEEDS,
        |strike| log(strike, Target::One),
        "a bit flips in the log of a stopped node, in a batch that was surely synced",
    ),
    Nemesis::new(
        "rot-log-majority",
        Family::Disk,
        NEEDS,
        |strike| log(strike, Target::Majority),
        "the same in the logs of a majority at once",
    ),
    Nemesis::new(
        "rot-state",
        Family::Disk,
        NEEDS,
        state,
        "bits flip in a quarter of the pages of a stopped node's state file",
    ),
];

/// A file that rots, and how it was.
pub(super) struct Rotten {
    node: usize,
    path: PathBuf,
    sound: Vec<u8>,
    /// What was done to it.
    pub(super) detail: String,
}

/// What a node did with its rotten files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// It ended, with this exit code.
    Ended(Option<i32>),
    /// It serves.
    Serves,
    /// It neither ended nor said anything.
    Silent,
}

fn log(strike: &mut Strike<'_>, target: Target) -> Result<Effect> {
    let world = strike.world;
    let nodes = target.choose(strike);
    let patients = stop(world, &nodes);
    let rotten = rot_logs(strike, &nodes)?;
    let answers = start_all(world, &nodes);
    strike.hold();
    let healing = world.clock().now();
    for (rotten, answer) in rotten.iter().zip(&answers) {
        // A node that did not start has promised nothing since, so its log as it was is still all that it promised. What one
        // that serves has promised lies behind the damage now: nobody may take it away.
        if *answer != Answer::Serves {
            rotten.put_back(world)?;
        }
    }
    drop(patients);
    let wrong: Vec<String> = nodes
        .iter()
        .zip(&answers)
        .filter(|(_, answer)| **answer != Answer::Ended(Some(LOG_CORRUPT)))
        .map(|(node, answer)| {
            format!("n{node} started on a log with a flipped bit in its middle: {answer:?}")
        })
        .collect();
    Ok(Effect {
        detail: rotten.iter().map(|file| file.detail.clone()).collect::<Vec<_>>().join(", "),
        healing,
        evidence: format!("{} of {} nodes refused to start", nodes.len() - wrong.len(), nodes.len()),
        effective: true,
        violation: (!wrong.is_empty()).then(|| wrong.join("; ")),
        nodes,
    })
}

/// Lets the logs of stopped nodes rot: of all, or of none.
fn rot_logs(strike: &mut Strike<'_>, nodes: &[usize]) -> Result<Vec<Rotten>> {
    let mut rotten: Vec<Rotten> = Vec::new();
    for node in nodes {
        let seed = strike.rng.random();
        let rotting =
            strike.world.in_data_dir(*node, |directory| rot_log(*node, &directory.join("log"), seed));
        match rotting.map_err(Into::into).and_then(|rotten| rotten) {
            Ok(file) => rotten.push(file),
            Err(error) => {
                rotten.iter().try_for_each(|file| file.put_back(strike.world))?;
                return Err(error);
            }
        }
    }
    Ok(rotten)
}

/// What became of a node with a rotten state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It left its service, and came back with another state.
    Rebuilt,
    /// It left its service, and did not come back.
    Quarantined,
    /// It ended, with this exit code.
    Ended(Option<i32>),
    /// It served as if nothing were wrong.
    Unnoticed,
}

fn state(strike: &mut Strike<'_>) -> Result<Effect> {
    let world = strike.world;
    let node = any(strike);
    let mut details = Vec::new();
    let mut fate = Fate::Unnoticed;
    // What was hit may be read by nobody. The second time nothing is left that it could read.
    for share in [PAGE_SHARE, 1] {
        let patients = stop(world, &[node]);
        let rotten = rot_state(strike, node, share)?;
        details.push(rotten.detail.clone());
        let rebuilt_before = rebuilt(world);
        start(world, node);
        fate = await_fate(world, node, rebuilt_before);
        if let Fate::Ended(_) = fate {
            // What redb makes of its pages may end the process. Its log stays as it is by now, and the state as it was is
            // caught up from it.
            rotten.put_back(world)?;
        }
        drop(patients);
        if fate != Fate::Unnoticed {
            break;
        }
    }
    strike.hold();
    let violation = match fate {
        Fate::Rebuilt | Fate::Ended(Some(STATE_CORRUPT)) => None,
        other => Some(format!("n{node} did not get another state for its rotten one: {other:?}")),
    };
    Ok(Effect {
        nodes: vec![node],
        detail: details.join(", unnoticed; then "),
        healing: world.clock().now(),
        evidence: format!("with that, n{node}: {fate:?}"),
        effective: fate != Fate::Unnoticed,
        violation,
    })
}

/// Follows a node with a rotten state until it is clear what becomes of it.
fn await_fate(world: &World, node: usize, rebuilt_before: f64) -> Fate {
    let begun = Instant::now();
    let mut found = false;
    loop {
        if !world.is_running(node) {
            return Fate::Ended(last_exit(world, node));
        }
        let is_quarantined = metric(world, node, "ringfence_state_quarantine").map(|value| value > 0.0);
        found = found || is_quarantined == Some(true) || rebuilt(world) > rebuilt_before;
        match (found, is_quarantined) {
            (true, Some(false)) => return Fate::Rebuilt,
            (true, _) if begun.elapsed() > FINDING_MAX + REBUILDING_MAX => return Fate::Quarantined,
            (false, _) if begun.elapsed() > FINDING_MAX => return Fate::Unnoticed,
            _ => std::thread::sleep(LOOK_INTERVAL),
        }
    }
}

/// States that the nodes say they have rebuilt for others.
fn rebuilt(world: &World) -> f64 {
    (1..=world.nodes()).filter_map(|node| metric(world, node, "ringfence_states_replaced_total")).sum()
}

fn metric(world: &World, node: usize, name: &str) -> Option<f64> {
    let (_, page) = world.http(node, "/metrics").ok()?;
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Flips bits in one of so many pages of a stopped node's state file.
fn rot_state(strike: &mut Strike<'_>, node: usize, share: u32) -> Result<Rotten> {
    let seed = strike.rng.random();
    let rot = |directory: &Path| flip_pages(node, &directory.join("state/state.redb"), share, seed);
    strike.world.in_data_dir(node, rot)?
}

/// Stops nodes whose files are going to rot. They run again when the result is dropped, and may end by themselves until then.
fn stop<'a>(world: &'a World, nodes: &[usize]) -> Healing<impl FnMut() + use<'a>> {
    let nodes = nodes.to_vec();
    for node in &nodes {
        world.kill(*node);
        world.allow_exit(*node, "its files are rotten");
    }
    Healing(move || {
        for node in &nodes {
            start(world, *node);
            world.forbid_exit(*node);
        }
    })
}

/// Starts nodes and waits until each has ended, or serves.
fn start_all(world: &World, nodes: &[usize]) -> Vec<Answer> {
    nodes.iter().for_each(|node| start(world, *node));
    let begun = Instant::now();
    loop {
        let answers: Vec<Answer> = nodes.iter().map(|node| answer_of(world, *node)).collect();
        if !answers.contains(&Answer::Silent) || begun.elapsed() > ANSWER_MAX {
            return answers;
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

fn answer_of(world: &World, node: usize) -> Answer {
    if !world.is_running(node) {
        return Answer::Ended(last_exit(world, node));
    }
    if world.status(node).is_some() { Answer::Serves } else { Answer::Silent }
}

impl Rotten {
    /// Makes the file what it was. The node must not run.
    fn put_back(&self, world: &World) -> Result<()> {
        world.in_data_dir(self.node, |_| -> Result<()> {
            fs::write(&self.path, &self.sound)?;
            File::open(&self.path)?.sync_all()?;
            Ok(())
        })?
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Flips a bit of a batch after which there is another one.
fn rot_log(node: usize, directory: &Path, seed: u64) -> Result<Rotten> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut segments: Vec<PathBuf> = fs::read_dir(directory)?.flatten().map(|entry| entry.path()).collect();
    segments.sort();
    let mut hit = None;
    for path in segments {
        let sound = fs::read(&path)?;
        let mut batches = live_batches(&sound);
        // The last batch of all would be taken for torn, lawfully; that of any segment goes, to be on the safe side.
        batches.pop();
        if let Some((at, length)) = batches.choose(&mut random) {
            let place = at + BATCH_HEADER + random.random_range(0..(*length).max(1));
            let detail = format!("n{node}: a bit of {} at byte {place}", name_of(&path));
            hit = Some((Rotten { node, path, sound, detail }, place));
        }
    }
    let (rotten, place) = hit.context("the log has no two batches yet")?;
    flip(&rotten, [place], &mut random)?;
    Ok(rotten)
}

/// The batches that a segment holds, without remains of what its file held before: where each begins, and the length of its
/// payload.
fn live_batches(segment: &[u8]) -> Vec<(usize, usize)> {
    // The number of the segment stands in its own header at the place where it stands in a batch's.
    let Some(number) = segment.get(16..24).filter(|_| segment.starts_with(SEGMENT_MAGIC)) else {
        return Vec::new();
    };
    let mut batches = Vec::new();
    let mut at = LOG_BLOCK;
    while let Some(header) = segment.get(at..at + BATCH_HEADER) {
        if !header.starts_with(BATCH_MAGIC) || &header[16..24] != number {
            break;
        }
        let length = u32::from_le_bytes([header[12], header[13], header[14], header[15]]) as usize;
        batches.push((at, length));
        at += (BATCH_HEADER + length).next_multiple_of(LOG_BLOCK);
    }
    batches
}

/// Flips a bit in one of so many pages of a file, of those that hold something.
pub(super) fn flip_pages(node: usize, path: &Path, share: u32, seed: u64) -> Result<Rotten> {
    let mut random = StdRng::seed_from_u64(seed);
    let sound = fs::read(path)?;
    let mut places = Vec::new();
    for (number, page) in sound.chunks(PAGE).enumerate() {
        let used: Vec<usize> = (0..page.len()).filter(|at| page[*at] != 0).collect();
        if random.random_ratio(1, share)
            && let Some(at) = used.choose(&mut random)
        {
            places.push(number * PAGE + at);
        }
    }
    ensure!(!places.is_empty(), "{} holds next to nothing", path.display());
    let detail = format!("n{node}: {} bits of {}", places.len(), name_of(path));
    let rotten = Rotten { node, path: path.to_path_buf(), sound, detail };
    flip(&rotten, places, &mut random)?;
    Ok(rotten)
}

fn flip(file: &Rotten, places: impl IntoIterator<Item = usize>, random: &mut StdRng) -> Result<()> {
    let target = File::options().write(true).open(&file.path)?;
    for place in places {
        let bit = 1 << random.random_range(0..8);
        target.write_all_at(&[file.sound[place] ^ bit], place as u64)?;
    }
    target.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A segment as the log writes it: two batches of its own, then remains of the file's earlier life.
    fn segment() -> Vec<u8> {
        let mut bytes = vec![0; 8 * LOG_BLOCK];
        bytes[..8].copy_from_slice(SEGMENT_MAGIC);
        bytes[16..24].copy_from_slice(&9_u64.to_le_bytes());
        for (at, length, number) in [(512, 100_u32, 9_u64), (1_024, 600, 9), (2_048, 50, 4)] {
            bytes[at..at + 4].copy_from_slice(BATCH_MAGIC);
            bytes[at + 12..at + 16].copy_from_slice(&length.to_le_bytes());
            bytes[at + 16..at + 24].copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn live_batches_end_where_an_earlier_life_begins() {
        assert_eq!(live_batches(&segment()), [(512, 100), (1_024, 600)]);
        assert_eq!(live_batches(&[]), []);
    }

    #[test]
    fn rot_flips_one_bit_of_a_batch_that_is_not_the_last() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        fs::write(folder.path().join("1"), segment()).expect("the folder is writable");
        for seed in 0..20 {
            let rotten = rot_log(1, folder.path(), seed).expect("there are two batches");
            let now = fs::read(&rotten.path).expect("the file is readable");
            let flipped: Vec<usize> = (0..now.len()).filter(|at| now[*at] != rotten.sound[*at]).collect();
            assert!(matches!(flipped[..], [place] if (568..668).contains(&place)), "{flipped:?}");
            assert_eq!((now[flipped[0]] ^ rotten.sound[flipped[0]]).count_ones(), 1);
            fs::write(&rotten.path, &rotten.sound).expect("the file is writable");
        }
    }
}
