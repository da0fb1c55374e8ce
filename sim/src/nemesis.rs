//! Carries a schedule out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ringfence_consensus::rt;
use ringfence_consensus::rt::simulated::{self as executor, Host, Pauses};

use crate::schedule::{DiskError, Fault, Rotten, Step};
use crate::world::{CLIENTS, Life, Machine, Pace, Stop, World, host_of};

/// How long a supervisor waits before it starts a process that ended by itself.
const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// Does to a world what its schedule says.
pub struct Nemesis {
    world: Arc<World>,
    /// Steps that had an effect.
    pub effects: AtomicU64,
}

impl Nemesis {
    /// Nothing is done yet.
    #[must_use]
    pub fn new(world: Arc<World>) -> Arc<Nemesis> {
        Arc::new(Nemesis { world, effects: AtomicU64::new(0) })
    }

    /// Carries out all steps, each on its own: they overlap. Returns when the last one is over.
    pub async fn carry_out(self: &Arc<Self>, steps: Vec<Step>) {
        let begun = rt::now();
        let tasks: Vec<_> = steps
            .into_iter()
            .map(|step| {
                let this = self.clone();
                executor::spawn_on(Host::WORLD, async move {
                    rt::sleep_until(begun + step.at).await;
                    // Not always at the very moment of the timer: somewhere among the steps that are ready then.
                    for _ in 0..executor::random_below(20) {
                        executor::yield_now().await;
                    }
                    executor::note([5, 0, 0], format_args!("fault: {step}"));
                    tracing::info!("fault: {step}");
                    if this.inflict(&step).await {
                        this.effects.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("nobody crashes the world");
        }
    }

    /// Starts processes that ended by themselves again, as a supervisor does, for ever.
    pub async fn supervise(self: Arc<Self>) {
        loop {
            rt::sleep(RESTART_PAUSE).await;
            for machine in &self.world.machines {
                if matches!(machine.life(), Life::Ended(_)) {
                    machine.start();
                }
            }
        }
    }

    /// Carries out one step. False where it met nothing to act on.
    async fn inflict(&self, step: &Step) -> bool {
        match &step.fault {
            Fault::Stop(number, stop) => self.stop(&[*number], *stop, step.lasts).await,
            Fault::StopLeader(stop) => self.stop(&self.leader(), *stop, step.lasts).await,
            Fault::StopFollowers(stop) => {
                let leader = self.world.leader();
                let followers = (1..=self.world.machines.len()).filter(|number| Some(*number) != leader);
                leader.is_some() && self.stop(&followers.collect::<Vec<_>>(), *stop, step.lasts).await
            }
            Fault::LeaveBehind(number) => self.leave_behind(*number, step.lasts).await,
            Fault::StopAll(stop) => {
                let all: Vec<usize> = (1..=self.world.machines.len()).collect();
                self.stop(&all, *stop, step.lasts).await
            }
            Fault::PowerCutAtDiskStep(number, steps) => self.cut_power_at(*number, *steps, step.lasts).await,
            Fault::Cut(from, to) => self.cut(&[(hosts(from), hosts(to))], step.lasts).await,
            Fault::Halves(one, other) => {
                let (one, other) = (hosts(one), hosts(other));
                self.cut(&[(one.clone(), other.clone()), (other, one)], step.lasts).await
            }
            Fault::IsolateLeader => self.part_leader(step.lasts, true, true).await,
            Fault::LeaderOneWay(outwards) => self.part_leader(step.lasts, *outwards, !*outwards).await,
            Fault::Ring => self.ring(step.lasts).await,
            Fault::CutClients(number) => {
                let (node, clients) = (hosts(&[*number]), vec![CLIENTS]);
                self.cut(&[(node.clone(), clients.clone()), (clients, node)], step.lasts).await
            }
            Fault::Slow(one, other, pace) => {
                self.slow(&[(*one, *other), (*other, *one)], *pace, step.lasts).await
            }
            Fault::Late(from, to, pace) => self.slow(&[(*from, *to)], *pace, step.lasts).await,
            Fault::Reset(one, other) => self.world.fabric.reset(host_of(*one), host_of(*other)) > 0,
            Fault::Rate(number, ppm) => {
                executor::set_rate(host_of(*number), *ppm);
                true
            }
            Fault::Suspend(number) => self.suspend(&[*number], step.lasts).await,
            Fault::SuspendLeader => self.suspend(&self.leader(), step.lasts).await,
            Fault::SlowDisk(number, min, max) => {
                let (min, max) = (Duration::from_millis(*min), Duration::from_millis(*max));
                executor::set_pauses(host_of(*number), Pauses { sync: (min, max), blocking: (min, max) });
                rt::sleep(step.lasts).await;
                executor::set_pauses(host_of(*number), Pauses::QUICK);
                true
            }
            Fault::DiskError(number, error, after) => self.fail_disk(*number, *error, *after),
            Fault::DiskFull(number, room) => self.fill_disk(*number, *room, step.lasts).await,
            Fault::Rot(number, rotten) => self.rot(*number, *rotten, step.lasts).await,
            Fault::Transfer(to) => self.transfer(*to),
            Fault::Checkpoint(number) => {
                self.on_node(*number, |node| async move { drop(node.checkpoint().await) })
            }
            Fault::Purge(number) => {
                self.on_node(*number, |node| async move { node.purge_to_checkpoint().await })
            }
            Fault::Snapshot(number) => {
                self.on_node(*number, |node| async move { drop(node.write_snapshot().await) })
            }
        }
    }

    fn leader(&self) -> Vec<usize> {
        self.world.leader().into_iter().collect()
    }

    fn machine(&self, number: usize) -> &Arc<Machine> {
        self.world.machine(number)
    }

    async fn stop(&self, numbers: &[usize], stop: Stop, lasts: Duration) -> bool {
        let up = |number: &&usize| !matches!(self.machine(**number).life(), Life::Down);
        let stopped: Vec<usize> = numbers.iter().filter(up).copied().collect();
        for number in &stopped {
            self.machine(*number).stop(stop);
        }
        rt::sleep(lasts).await;
        for number in &stopped {
            self.machine(*number).start();
        }
        !stopped.is_empty()
    }

    /// While a node is away, every other one makes a checkpoint and drops the log up to it.
    async fn leave_behind(&self, number: usize, lasts: Duration) -> bool {
        let machine = self.machine(number);
        if machine.node().is_none() {
            return false;
        }
        machine.stop(Stop::Kill);
        rt::sleep(lasts).await;
        for other in self.world.running() {
            self.on_node(other.number, |node| async move {
                if node.checkpoint().await.is_ok() {
                    node.purge_to_checkpoint().await;
                }
            });
        }
        rt::sleep(lasts / 4).await;
        machine.start();
        true
    }

    /// The disk dies in the middle of whatever it does then; the observer sees it and ends the machine.
    async fn cut_power_at(&self, number: usize, steps: u64, lasts: Duration) -> bool {
        let machine = self.machine(number);
        if machine.node().is_none() {
            return false;
        }
        machine.disk.inject(ringfence_disk::Fault::CrashAtStep(machine.disk.steps() + steps));
        for _ in 0..200 {
            rt::sleep(Duration::from_millis(20)).await;
            if matches!(machine.life(), Life::Down) {
                rt::sleep(lasts).await;
                machine.start();
                return true;
            }
        }
        machine.disk.clear_faults();
        false
    }

    async fn cut(&self, cuts: &[(Vec<Host>, Vec<Host>)], lasts: Duration) -> bool {
        for (from, to) in cuts {
            self.world.fabric.cut(from, to);
        }
        let before = self.world.fabric.counts().held_up;
        rt::sleep(lasts).await;
        for (from, to) in cuts {
            self.world.fabric.mend(from, to);
        }
        self.world.fabric.counts().held_up > before
    }

    async fn slow(&self, routes: &[(usize, usize)], pace: Pace, lasts: Duration) -> bool {
        let set = |pace| {
            for (from, to) in routes {
                self.world.fabric.set_pace(host_of(*from), host_of(*to), pace);
            }
        };
        set(Some(pace));
        rt::sleep(lasts).await;
        set(None);
        true
    }

    async fn part_leader(&self, lasts: Duration, outwards: bool, inwards: bool) -> bool {
        let Some(leader) = self.world.leader() else { return false };
        let others: Vec<usize> = (1..=self.world.machines.len()).filter(|number| *number != leader).collect();
        let (leader, others) = (hosts(&[leader]), hosts(&others));
        let mut cuts = Vec::new();
        if outwards {
            cuts.push((leader.clone(), others.clone()));
        }
        if inwards {
            cuts.push((others, leader));
        }
        self.cut(&cuts, lasts).await
    }

    /// Cuts each node from those that are not its next ones, so that it still sees a majority.
    async fn ring(&self, lasts: Duration) -> bool {
        let count = self.world.machines.len();
        let reach = (count / 2).div_ceil(2);
        let far = |one: usize, other: usize| {
            let apart = one.abs_diff(other);
            apart.min(count - apart) > reach
        };
        let cuts: Vec<_> = (1..=count)
            .map(|one| {
                let others: Vec<usize> =
                    (1..=count).filter(|other| *other != one && far(one, *other)).collect();
                (hosts(&[one]), hosts(&others))
            })
            .collect();
        self.cut(&cuts, lasts).await
    }

    async fn suspend(&self, numbers: &[usize], lasts: Duration) -> bool {
        for number in numbers {
            executor::suspend(host_of(*number));
        }
        rt::sleep(lasts).await;
        for number in numbers {
            executor::resume(host_of(*number));
        }
        !numbers.is_empty()
    }

    fn fail_disk(&self, number: usize, error: DiskError, after: u64) -> bool {
        let machine = self.machine(number);
        let step = machine.disk.steps() + after;
        machine.allow_disk_failure();
        machine.disk.inject(match error {
            DiskError::Read => ringfence_disk::Fault::FailRead(step),
            DiskError::Write => ringfence_disk::Fault::FailWrite(step),
            DiskError::Sync => ringfence_disk::Fault::FailSync(step),
        });
        machine.node().is_some()
    }

    async fn fill_disk(&self, number: usize, room: u64, lasts: Duration) -> bool {
        let machine = self.machine(number);
        machine.allow_disk_failure();
        machine.disk.inject(ringfence_disk::Fault::Full { bytes: machine.disk.used_bytes() + room });
        rt::sleep(lasts).await;
        machine.disk.clear_faults();
        true
    }

    async fn rot(&self, number: usize, rotten: Rotten, lasts: Duration) -> bool {
        let machine = self.machine(number);
        machine.stop(Stop::Kill);
        machine.allow_corruption();
        let flipped = flip_a_bit(machine, rotten);
        rt::sleep(lasts).await;
        machine.start();
        flipped
    }

    fn transfer(&self, to: Option<usize>) -> bool {
        let Some(leader) = self.world.leader() else { return false };
        let to = to.map(|number| ringfence_types::NodeId(number as u64));
        self.on_node(leader, move |node| async move {
            let deadline = rt::now() + Duration::from_secs(2);
            drop(node.transfer_leadership(to, deadline).await);
        })
    }

    /// Has a node do something, as its operator.
    fn on_node<F>(&self, number: usize, act: impl FnOnce(ringfence_consensus::Node) -> F) -> bool
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let machine = self.machine(number);
        let Some(node) = machine.node() else { return false };
        drop(executor::spawn_on(machine.host, act(node)));
        true
    }
}

fn hosts(numbers: &[usize]) -> Vec<Host> {
    numbers.iter().map(|number| host_of(*number)).collect()
}

/// Flips a bit somewhere in a file of a stopped machine.
fn flip_a_bit(machine: &Machine, rotten: Rotten) -> bool {
    let directory = if rotten == Rotten::Log { "log" } else { "state" };
    let Some(disk) = machine.disk.inner(directory) else { return false };
    let files: Vec<(String, u64)> = disk.files().into_iter().filter(|(_, bytes)| *bytes > 0).collect();
    if files.is_empty() {
        return false;
    }
    let (name, bytes) = &files[executor::random_below(files.len() as u64) as usize];
    disk.corrupt(name, executor::random_below(*bytes), 1 << executor::random_below(8));
    true
}
