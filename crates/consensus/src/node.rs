//! A node: all parts of consensus put together, and the verbs that the floors above know.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use ringfence_canary::Canary;
use ringfence_disk::{Disk, File};
use ringfence_store::{SnapshotMeta, View};
use ringfence_types::{Command, Freshness, NodeId, Outcome, Term, limits};

use crate::api::{BarrierError, Config, Failure, ProposeError, Role, TransferError};
use crate::authority::{Authority, Standing};
use crate::campaigning::Campaigning;
use crate::divergence::{self, Findings};
use crate::failures::Failures;
use crate::freshness::{self, FreshAsOf};
use crate::identity::Identity;
use crate::maintenance::Housekeeper;
use crate::measure::Recorder;
use crate::membership::request::Judge;
use crate::membership::{controller, joining};
use crate::net::{Door, Links, Local, Network, Transfers, serve_peers};
use crate::opening::{Opened, check, open, start_raft};
use crate::propose::{self, Proposer};
use crate::quota::{self, Quota};
use crate::raft::gate::Gate;
use crate::raft::log_store::LogStore;
use crate::raft::state_machine::Shelf;
use crate::raft::types::Raft;
use crate::read::{self, Oracle, Reads};
use crate::scrubber::{self, Scrubs};
use crate::{founding, maintenance, quarantine, recovery, rt, space, watchdog};

/// Pause between two looks at a state that has no other sign.
const LOOK: Duration = Duration::from_millis(10);
/// A successor may lag behind the leader's log by this many entries: it catches up within a heartbeat.
const SUCCESSOR_LAG_MAX: u64 = 1_000;
/// openraft hears of a checkpoint within this time, unless it makes none any more.
const CHECKPOINT_KNOWN_MAX: Duration = Duration::from_secs(5);
/// How long a planned stop tries to hand leadership over.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(3);

/// A running node. Clones are handles to the same one.
#[derive(Clone)]
pub struct Node(pub(crate) Arc<Parts>);

pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) identity: Arc<Identity>,
    pub(crate) raft: Raft,
    pub(crate) log: LogStore,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) links: Arc<Links>,
    proposer: Proposer,
    reads: Reads,
    pub(crate) fresh: FreshAsOf,
    pub(crate) judge: Judge,
    pub(crate) failures: Failures,
    pub(crate) checkpoint_time: Arc<Recorder>,
    pub(crate) findings: Findings,
    pub(crate) scrubs: Scrubs,
    campaigning: Campaigning,
    pub(crate) quota: Arc<Quota>,
    stopping: AtomicBool,
}

/// A snapshot of the whole state in a file of its own, which is removed when this is dropped.
pub struct SnapshotFile {
    /// What it holds.
    pub meta: SnapshotMeta,
    /// Its bytes.
    pub file: Arc<dyn File>,
    name: String,
    shelf: Arc<Shelf>,
}

impl Drop for SnapshotFile {
    fn drop(&mut self) {
        if let Err(error) = self.shelf.disk().remove(&self.name) {
            tracing::warn!("the snapshot file {} stays: {error}", self.name);
        }
    }
}

impl Node {
    /// Opens the data directory on `disk`, joins the cluster over `network`, and runs until [`Node::shutdown`] or a
    /// failure. Returns as soon as reads of the local state can be served.
    ///
    /// # Errors
    /// Whatever makes a start impossible; each kind is an exit code of its own.
    pub async fn start(
        config: Config,
        disk: Arc<dyn Disk>,
        network: Arc<dyn Network>,
    ) -> Result<Node, Failure> {
        check(&config)?;
        joining::join(&config, &disk, network.as_ref()).await?;
        let started = rt::now();
        let failures = Failures::new();
        let opened = {
            let (config, failures) = (config.clone(), failures.clone());
            let opening = rt::blocking(move || open(&config, disk, failures)).await;
            opening.map_err(|error| Failure::Consensus(format!("opening the data directory: {error}")))??
        };
        let Opened { identity, log, shelf, gate, peers, quarantine, found } = opened;
        let local = Arc::new(Local {
            identity: identity.clone(),
            version: config.version.clone(),
            leader_lease: config.timing.leader_lease,
            secret: config.peer_secret.clone(),
            peers,
            quarantine,
            found,
        });
        let transfers = Transfers::new(config.snapshot_bytes_per_second);
        let links = Arc::new(Links::new(network.clone(), local.clone(), transfers));
        if let Err(error) = recovery::warm(&log, &shelf.store).await {
            tracing::debug!("reading ahead of the replay: {error}");
        }
        let authority = Arc::new(Authority::new(identity.node_id(), config.timing));
        let raft = start_raft(&config, &log, &shelf, links.clone(), authority.clone()).await?;
        let (reads, questions) = Reads::new();
        let quota = Arc::new(Quota::new(config.space, shelf.store.clone()));
        let (proposer, writes) = Proposer::new(authority.clone(), shelf.clone(), quota.clone());
        let judge = Judge {
            raft: raft.clone(),
            shelf: shelf.clone(),
            authority: authority.clone(),
            links: links.clone(),
            proposer: proposer.clone(),
            leader_lease: config.timing.leader_lease,
        };
        let node = Node(Arc::new(Parts {
            config,
            identity,
            raft,
            log,
            shelf,
            gate,
            authority,
            links,
            proposer,
            reads,
            fresh: FreshAsOf::new(),
            judge,
            failures,
            checkpoint_time: Arc::default(),
            findings: Findings::default(),
            scrubs: Scrubs::default(),
            campaigning: Campaigning::default(),
            quota,
            stopping: AtomicBool::new(false),
        }));
        rt::spawn(quarantine::leave(node.clone(), node.0.links.clone(), started));
        node.start_tasks(network, local, questions, writes);
        Ok(node)
    }

    fn start_tasks(
        &self,
        network: Arc<dyn Network>,
        local: Arc<Local>,
        questions: tokio::sync::mpsc::Receiver<read::Question>,
        writes: tokio::sync::mpsc::Receiver<propose::Waiting>,
    ) {
        let parts = &self.0;
        let store = parts.shelf.store.clone();
        rt::spawn(parts.authority.clone().follow(parts.raft.clone(), local.clone(), store));
        let oracle = Oracle {
            raft: parts.raft.clone(),
            authority: parts.authority.clone(),
            links: parts.links.clone(),
            local: local.clone(),
        };
        rt::spawn(read::serve(oracle, questions));
        rt::spawn(propose::serve(parts.raft.clone(), parts.authority.clone(), writes));
        let door = Door {
            local,
            raft: parts.raft.clone(),
            log: parts.log.clone(),
            shelf: parts.shelf.clone(),
            authority: parts.authority.clone(),
            proposer: parts.proposer.clone(),
            reads: parts.reads.clone(),
            judge: parts.judge.clone(),
        };
        rt::spawn(serve_peers(network, Arc::new(door)));
        let housekeeper = Housekeeper {
            raft: parts.raft.clone(),
            log: parts.log.clone(),
            shelf: parts.shelf.clone(),
            gate: parts.gate.clone(),
            failures: parts.failures.clone(),
            checkpoint_interval: parts.config.checkpoint_interval,
            retention: parts.config.retention,
            checkpoint_time: parts.checkpoint_time.clone(),
        };
        rt::spawn(housekeeper.run());
        rt::spawn(quota::watch(self.clone(), parts.quota.clone()));
        rt::spawn(space::give_back(parts.shelf.clone(), parts.failures.clone()));
        rt::spawn(maintenance::follow_snapshots(parts.raft.clone(), parts.shelf.clone()));
        rt::spawn(watchdog::watch_core(self.clone(), parts.raft.clone(), parts.failures.clone()));
        rt::spawn(watchdog::watch_disk(self.clone(), parts.log.clone(), parts.failures.clone()));
        rt::spawn(divergence::watch(self.clone(), parts.config.integrity.compare_interval));
        rt::spawn(divergence::keep_from_leading(self.clone()));
        rt::spawn(scrubber::run(self.clone()));
        rt::spawn(freshness::keep_young(self.clone()));
        rt::spawn(self.clone().publish());
        rt::spawn(controller::run(self.clone()));
    }

    /// Lets this node campaign, unless something speaks against it.
    pub(crate) fn settle_campaigning(&self) {
        let parts = &self.0;
        let may = || parts.links.local.quarantine.check_vote().is_ok() && !parts.shelf.quarantine.is_on();
        parts.campaigning.settle(may, |may| parts.raft.runtime_config().elect(may));
    }

    /// Founds the cluster if need be, then tells everybody where clients reach this node.
    async fn publish(self) {
        let parts = &self.0;
        let founded =
            founding::found(&parts.raft, &parts.identity, &parts.links, &parts.config.founders).await;
        if let Err(failure) = founded {
            return parts.failures.report(failure);
        }
        while !self.is_stopping() && parts.links.local.quarantine.imposed().is_none() {
            let standing = self.0.authority.standing().members.get(&self.node_id()).cloned();
            let Some(configured) = standing else {
                rt::sleep(LOOK * 5).await;
                continue;
            };
            let client_urls = &self.0.config.client_urls;
            let published = self.view().members().get(&self.node_id()).cloned();
            if published.is_some_and(|own| own.name == configured.name && own.client_urls == *client_urls) {
                return;
            }
            let publish = Command::PublishMember {
                id: self.node_id(),
                name: configured.name,
                peer_urls: vec![format!("http://{}", configured.address)],
                client_urls: client_urls.clone(),
            };
            match self.propose(&publish, rt::now() + limits::REQUEST_TIMEOUT).await {
                // Applied where it was proposed; here it will be soon.
                Ok(_) => return,
                Err(error) => {
                    tracing::debug!("publishing this node's addresses: {error}");
                    rt::sleep(LOOK * 10).await;
                }
            }
        }
    }

    /// Proposes a command wherever the leader is, and waits until this attempt's outcome is known.
    ///
    /// # Errors
    /// See [`ProposeError`]: each variant says whether the write may have happened.
    pub async fn propose(&self, command: &Command, deadline: rt::Instant) -> Result<Outcome, ProposeError> {
        if self.is_stopping() {
            return Err(ProposeError::NotReady("the node is stopping".to_owned()));
        }
        self.propose_anyway(command, deadline).await
    }

    /// The same for what belongs to a planned stop itself.
    pub(crate) async fn propose_anyway(
        &self,
        command: &Command,
        deadline: rt::Instant,
    ) -> Result<Outcome, ProposeError> {
        let parts = &self.0;
        let sealed = ringfence_proto::command::encode(command);
        propose::propose(&parts.proposer, &parts.authority, &parts.links, sealed, deadline).await
    }

    /// Waits until the local state is as fresh as asked, and returns a view of it.
    ///
    /// # Errors
    /// See [`BarrierError`]. A read changes nothing and may always be tried again.
    pub async fn read_barrier(
        &self,
        freshness: Freshness,
        deadline: rt::Instant,
    ) -> Result<View, BarrierError> {
        let quorum_round = match freshness {
            Freshness::Any => return self.believed_view(),
            Freshness::Revision(revision) => return self.wait_revision(revision, deadline).await,
            Freshness::Token(token) => return self.wait_token(token, deadline).await,
            Freshness::MaxAge(max_age) if self.is_within(max_age) => return self.believed_view(),
            Freshness::Quorum => true,
            // An answer of this very moment is younger than any age.
            Freshness::Linearizable | Freshness::MaxAge(_) => false,
        };
        if Canary::LocalRead.sings() {
            // However far this member lags behind.
            return Ok(self.view());
        }
        self.believed_view()?;
        let barrier = async {
            loop {
                let sent = rt::now();
                match self.0.reads.ask(quorum_round).await {
                    Ok(index) => break Ok((index, sent)),
                    Err(BarrierError::NoLeader { read_only: None } | BarrierError::NotReady(_))
                        if !self.is_stopping() =>
                    {
                        // An election is on its way, or its news.
                        rt::sleep(LOOK).await;
                    }
                    Err(error) => break Err(error),
                }
            }
        };
        let reading = async {
            let (index, sent) = barrier.await?;
            self.0.shelf.wait_applied(index).await;
            self.0.fresh.note(sent);
            self.believed_view()
        };
        match rt::timeout_at(deadline, reading).await {
            Some(read) => read,
            // What is not carried out is waited for in vain.
            None => self.believed_view().and(Err(BarrierError::Deadline)),
        }
    }

    /// The newest local state, if it is to be believed.
    ///
    /// # Errors
    /// [`BarrierError::StateQuarantine`] where it is not.
    pub fn believed_view(&self) -> Result<View, BarrierError> {
        let view = self.view();
        // Asked afterwards: a state found to be bad before the view was taken is not shown.
        self.0.shelf.quarantine.check().map_err(BarrierError::StateQuarantine)?;
        Ok(view)
    }

    /// The newest local state, as old as it may be, and whether or not it is to be believed: clients are answered from
    /// [`Node::believed_view`].
    #[must_use]
    pub fn view(&self) -> View {
        self.0.shelf.store.view()
    }

    /// To follow what is applied here and shown in views: the index of the newest entry plus one, 0 for nothing.
    #[must_use]
    pub fn applied_changes(&self) -> rt::watch::Receiver<u64> {
        self.0.shelf.applied()
    }

    /// The cluster's number; 0 until it has been founded.
    #[must_use]
    pub fn cluster_id(&self) -> u64 {
        self.0.identity.cluster_id()
    }

    /// This node's number.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.0.identity.node_id()
    }

    /// The current Raft term.
    #[must_use]
    pub fn term(&self) -> Term {
        Term(self.0.raft.server_metrics().borrow_watched().vote.leader_id.term)
    }

    /// The leader that this node knows and has heard from lately; itself only while its leader lease holds.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.0.authority.standing().leader
    }

    /// Whether a planned stop is under way.
    pub(crate) fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Acquire)
    }

    /// Whether linearizable work can be done here now, and if not, why.
    ///
    /// # Errors
    /// The reason, in plain words.
    pub fn ready(&self) -> Result<(), String> {
        if self.is_stopping() {
            return Err("the node is stopping".to_owned());
        }
        if let Some(failure) = self.0.failures.first() {
            return Err(failure.to_string());
        }
        if let Some(quarantine) = self.quarantine() {
            return Err(quarantine.to_string());
        }
        if let Some(read_only) = self.0.authority.read_only() {
            return Err(read_only.to_string());
        }
        match self.leader() {
            Some(_) => Ok(()),
            None => Err("no leader is known yet".to_owned()),
        }
    }

    /// Hands leadership to `to`, or to the voter that is best prepared. Returns the new leader, once it serves.
    ///
    /// # Errors
    /// See [`TransferError`].
    pub async fn transfer_leadership(
        &self,
        to: Option<NodeId>,
        deadline: rt::Instant,
    ) -> Result<NodeId, TransferError> {
        let target = self.hand_over(to, deadline).await?;
        // The others hear of a new leader before it has its lease: an answer to a read says that it has.
        match self.read_barrier(Freshness::Linearizable, deadline).await {
            Ok(_) => Ok(target),
            Err(_) => Err(TransferError::Timeout(target)),
        }
    }

    /// Hands leadership over, and waits until this node has heard of the new leader.
    pub(crate) async fn hand_over(
        &self,
        to: Option<NodeId>,
        deadline: rt::Instant,
    ) -> Result<NodeId, TransferError> {
        let target = self.successor(to)?;
        self.note_lease_clock().await;
        let mut standing = self.0.authority.subscribe();
        self.0.raft.trigger().transfer_leader(target.0).await.map_err(|_| TransferError::NotLeader)?;
        let taken = standing.wait_for(|standing| standing.leader == Some(target));
        match rt::timeout_at(deadline, taken).await {
            Some(Ok(_)) => Ok(target),
            _ => Err(TransferError::Timeout(target)),
        }
    }

    /// Leaves the lease clock to a successor as it stands now, so that leases do not last longer for a planned change.
    async fn note_lease_clock(&self) {
        let parts = &self.0;
        if self.lease_clock().is_some()
            && self.lease_count() > 0
            && let Err(error) = self.carry_lease_clock(rt::now() + parts.config.timing.leader_lease).await
        {
            tracing::debug!("the successor starts from an older reading of the lease clock: {error}");
        }
    }

    /// Who may take over: openraft itself checks nothing (reference: openraft, section 3.8).
    fn successor(&self, to: Option<NodeId>) -> Result<NodeId, TransferError> {
        let standing: Standing = self.0.authority.standing().clone();
        if standing.role != Role::Leader || standing.leader != Some(self.node_id()) {
            return Err(TransferError::NotLeader);
        }
        let others = standing.members.iter().filter(|(id, member)| member.is_voter && **id != self.node_id());
        let others: Vec<NodeId> = others.map(|(id, _)| *id).collect();
        match to {
            Some(to) if !others.contains(&to) => Err(TransferError::BadTarget(to)),
            Some(to) => self.check_successor(to).map(|_| to),
            None => {
                let fit = others.iter().filter_map(|id| Some((self.check_successor(*id).ok()?, *id)));
                fit.max().map(|(_, id)| id).ok_or(TransferError::NotReady {
                    target: others.first().copied().unwrap_or(self.node_id()),
                    reason: "no other voter answers and is close enough".to_owned(),
                })
            }
        }
    }

    /// The last entry that a successor is known to have, if it can take over.
    fn check_successor(&self, target: NodeId) -> Result<u64, TransferError> {
        let not_ready = |reason: String| Err(TransferError::NotReady { target, reason });
        if self.0.findings.is_quarantined(target) {
            return not_ready("it is in state quarantine".to_owned());
        }
        let metrics = self.0.raft.metrics().borrow_watched().clone();
        let answered = metrics.heartbeat.as_ref().and_then(|beats| beats.get(&target.0).copied().flatten());
        let age = answered.map(|answered| rt::since(*answered));
        if age.is_none_or(|age| age > self.0.config.timing.leader_lease) {
            return not_ready("it does not answer".to_owned());
        }
        let matched = metrics.replication.as_ref().and_then(|peers| peers.get(&target.0).copied().flatten());
        let matched = matched.map_or(0, |matched| matched.index());
        let lag = metrics.last_log_index.unwrap_or(0).saturating_sub(matched);
        if lag > SUCCESSOR_LAG_MAX {
            return not_ready(format!("it lags behind by {lag} entries"));
        }
        Ok(matched)
    }

    /// Writes a snapshot of the newest local state to a file.
    ///
    /// # Errors
    /// As the disk's, and when the state does not match its running hash; the node stops then.
    pub async fn write_snapshot(&self) -> Result<SnapshotFile, Failure> {
        let shelf = self.0.shelf.clone();
        let (_, name) = shelf.new_name("saved");
        let writing = move || {
            let meta = shelf.write_verified(&name)?;
            let opened = shelf.disk().open(&name, ringfence_disk::Open::Existing);
            let file = opened.map_err(|error| Failure::Disk(error.to_string()))?;
            Ok(SnapshotFile { meta, file, name, shelf })
        };
        rt::blocking(writing).await.map_err(|error| Failure::Consensus(error.to_string()))?
    }

    /// Writes the state file anew without its free pages, and gives them back to the disk; the node serves meanwhile.
    ///
    /// # Errors
    /// As the disk's; and when the state does not match its running hash, or it is no longer known which file is in force:
    /// the node stops then.
    pub async fn rebuild_state(&self) -> Result<(), Failure> {
        space::rebuild(&self.0.shelf).await
    }

    /// Merges what is in memory into the state file now.
    ///
    /// # Errors
    /// As the disk's; the node stops then.
    pub async fn checkpoint(&self) -> Result<(), Failure> {
        let parts = &self.0;
        let (shelf, gate, failures) = (&parts.shelf, &parts.gate, &parts.failures);
        if maintenance::checkpoint(shelf, gate, failures, &parts.checkpoint_time).await {
            return Ok(());
        }
        Err(failures.wait().await)
    }

    /// Tells that the state could not be read: the node would answer wrongly or not at all. It goes into state quarantine, or
    /// stops if it is the only one that has this state.
    pub fn report_unreadable(&self, error: &ringfence_store::StoreError) {
        self.0.shelf.state_failed(error);
    }

    /// Drops from the log all that the state file holds, whatever the retention: to free space at once. Members that are
    /// away will need a snapshot.
    pub async fn purge_to_checkpoint(&self) {
        let raft = &self.0.raft;
        let Some(bound) = self.0.gate.purge_bound() else { return };
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
        // openraft drops nothing that it does not know a checkpoint to cover, and it hears of this one in its own time.
        let waiting = raft.wait(Some(CHECKPOINT_KNOWN_MAX));
        let is_known = waiting.metrics(
            |metrics| metrics.snapshot.is_some_and(|last| last.index() >= bound.0),
            "the checkpoint to drop the log by",
        );
        if is_known.await.is_ok() {
            drop(raft.trigger().purge_log(bound.0).await);
        }
    }

    /// Waits until the node cannot go on, and tells why.
    pub async fn failed(&self) -> Failure {
        self.0.failures.wait().await
    }

    /// A planned stop: refuses new work, hands leadership over, stops consensus, and makes a last checkpoint.
    pub async fn shutdown(&self) {
        let parts = &self.0;
        if parts.stopping.swap(true, Ordering::AcqRel) {
            return;
        }
        match self.hand_over(None, rt::now() + HANDOVER_TIMEOUT).await {
            Ok(to) => tracing::info!("handed leadership over to node {to}"),
            Err(TransferError::NotLeader) => {}
            Err(error) => tracing::info!("leadership is not handed over: {error}"),
        }
        if let Err(error) = parts.raft.shutdown().await {
            tracing::warn!("stopping consensus: {error}");
        }
        if parts.failures.first().is_none() {
            drop(self.checkpoint().await);
        }
    }
}
