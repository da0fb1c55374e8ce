//! Rot: bits of a stopped node's files flip. A node that finds its log or its state corrupt must say so and not start;
//! then its files are put back as they were, since the way back without them (to join anew) is yet to come.

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
use super::{Effect, Family, Healing, Nemesis, Strike, named};
use crate::world::{Capability, World};

const NEEDS: &[Capability] = &[];
/// How long a node may take to find out that it must not start.
const REFUSAL_MAX: Duration = Duration::from_secs(3);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// The log's unit; each batch begins at a multiple of it.
const LOG_BLOCK: usize = 512;
/// A batch's header, of which bytes 12..16 tell the length of what follows, and 16..24 the segment that it was written to.
const BATCH_HEADER: usize = 56;
const BATCH_MAGIC: &[u8] = b"RFB1";
const SEGMENT_MAGIC: &[u8] = b"RFWALSEG";
/// Pages of the state file; one in so many is hit.
const STATE_PAGE: usize = 4_096;
const STATE_SHARE: u32 = 4;

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
        |strike| state(strike),
        "bits flip in a quarter of the pages of a stopped node's state file",
    ),
];

/// A file that rots, and how it was.
struct Rotten {
    path: PathBuf,
    sound: Vec<u8>,
}

/// What a node did with its rotten files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// It did not start.
    Refused,
    /// It serves.
    Started,
}

fn log(strike: &mut Strike<'_>, target: Target) -> Result<Effect> {
    let world = strike.world;
    let nodes = target.choose(strike);
    let patients = stop(world, &nodes);
    let mut places = Vec::new();
    let mut rotten = Vec::new();
    for node in &nodes {
        let seed = strike.rng.random();
        let (file, place) = world.in_data_dir(*node, |directory| rot_log(&directory.join("log"), seed))??;
        places.push(format!("n{node} {} byte {place}", name_of(&file.path)));
        rotten.push((*node, file));
    }
    let answers = start_all(world, &nodes);
    strike.hold();
    let healing = world.clock().now();
    let mut started = Vec::new();
    for ((node, file), answer) in rotten.iter().zip(&answers) {
        match answer {
            // It has promised nothing since, so the log as it was is still all that it promised.
            Answer::Refused => put_back(world, *node, file)?,
            // What it has promised since lies behind the damage now: nobody may take it away.
            Answer::Started => started.push(*node),
        }
    }
    drop(patients);
    let refused = answers.iter().filter(|answer| **answer == Answer::Refused).count();
    let violation = (!started.is_empty())
        .then(|| format!("{} started on a log with a flipped bit in its middle", named(&started)));
    Ok(Effect {
        nodes,
        detail: places.join(", "),
        healing,
        evidence: format!("{refused} of {} nodes refused to start", answers.len()),
        effective: refused > 0 || violation.is_some(),
        violation,
    })
}

fn state(strike: &mut Strike<'_>) -> Result<Effect> {
    let world = strike.world;
    let nodes = vec![any(strike)];
    let node = nodes[0];
    let patients = stop(world, &nodes);
    let seed = strike.rng.random();
    let (file, flips) = world.in_data_dir(node, |directory| rot_state(&directory.join("state"), seed))??;
    let answers = start_all(world, &nodes);
    // A node that serves all the same is stopped before its log forgets anything that the old state file lacks. Its log stays
    // as it is by then, and the state as it was is caught up from it.
    world.kill(node);
    strike.hold();
    let healing = world.clock().now();
    put_back(world, node, &file)?;
    drop(patients);
    let word = match answers[0] {
        Answer::Refused => "it did not start, or stopped as it found out",
        Answer::Started => "it served, since nothing read what was hit",
    };
    Ok(Effect {
        nodes,
        detail: format!("n{node}: {flips} bits flipped in {}", name_of(&file.path)),
        healing,
        evidence: word.to_owned(),
        effective: answers[0] == Answer::Refused,
        violation: None,
    })
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

/// Starts nodes and waits what they make of it.
fn start_all(world: &World, nodes: &[usize]) -> Vec<Answer> {
    nodes.iter().for_each(|node| start(world, *node));
    let begun = Instant::now();
    while begun.elapsed() < REFUSAL_MAX && nodes.iter().any(|node| world.is_running(*node)) {
        std::thread::sleep(LOOK_INTERVAL);
    }
    let answer = |node: &usize| if world.is_running(*node) { Answer::Started } else { Answer::Refused };
    nodes.iter().map(answer).collect()
}

fn put_back(world: &World, node: usize, file: &Rotten) -> Result<()> {
    world.in_data_dir(node, |_| -> Result<()> {
        fs::write(&file.path, &file.sound)?;
        File::open(&file.path)?.sync_all()?;
        Ok(())
    })?
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Flips a bit of a batch after which there is another one. Returns where.
fn rot_log(directory: &Path, seed: u64) -> Result<(Rotten, u64)> {
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
            hit = Some((Rotten { path, sound }, place));
        }
    }
    let (rotten, place) = hit.context("the log has no two batches yet")?;
    flip(&rotten, [place], &mut random)?;
    Ok((rotten, place as u64))
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

/// Flips a bit in a share of the pages that hold something. Returns in how many.
fn rot_state(directory: &Path, seed: u64) -> Result<(Rotten, usize)> {
    let (mut share, mut random) = (StdRng::seed_from_u64(seed), StdRng::seed_from_u64(seed + 1));
    let path = directory.join("state.redb");
    let sound = fs::read(&path)?;
    let places: Vec<usize> = sound
        .chunks(STATE_PAGE)
        .enumerate()
        .filter(|_| share.random_ratio(1, STATE_SHARE))
        // Somewhere among what the page holds.
        .filter_map(|(number, page)| {
            let used: Vec<usize> = (0..page.len()).filter(|at| page[*at] != 0).collect();
            Some(number * STATE_PAGE + used.choose(&mut random)?)
        })
        .collect();
    ensure!(!places.is_empty(), "the state file is empty");
    let count = places.len();
    let rotten = Rotten { path, sound };
    flip(&rotten, places, &mut random)?;
    Ok((rotten, count))
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
            let (rotten, place) = rot_log(folder.path(), seed).expect("there are two batches");
            assert!((512 + 56..512 + 156).contains(&place), "{place}");
            let now = fs::read(&rotten.path).expect("the file is readable");
            let bits: u32 =
                now.iter().zip(&rotten.sound).map(|(now, sound)| (now ^ sound).count_ones()).sum();
            assert_eq!(bits, 1);
            fs::write(&rotten.path, &rotten.sound).expect("the file is writable");
        }
    }
}
