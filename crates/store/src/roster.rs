//! Who shall belong to the cluster: changes of the members' records, judged on the state alone.
//!
//! Who votes at the moment is Raft's to know; the leader brings Raft's membership to what stands here.

use std::collections::BTreeMap;

use ringfence_types::{Index, Member, MemberChange, NodeId, Rejection, Wanted, limits};

/// The number that a member gets which the entry at `index` makes: no other entry gives it, and founders have smaller ones.
fn new_id(index: Index) -> NodeId {
    NodeId(256 * index.0)
}

/// Writes down how clients reach a member that has started.
pub(crate) fn publish(
    members: &mut BTreeMap<NodeId, Member>,
    id: NodeId,
    name: &str,
    peer_urls: &[String],
    client_urls: &[String],
) -> Result<(), Rejection> {
    let member = members.entry(id).or_insert_with(|| Member {
        id,
        name: String::new(),
        peer_urls: peer_urls.to_vec(),
        client_urls: Vec::new(),
        disk_id: 0,
        // A founder: everybody else has joined before.
        wanted: Wanted::Voter,
        replaces: None,
    });
    if !member.is_wanted() {
        return Err(Rejection::MemberRemoved(id));
    }
    name.clone_into(&mut member.name);
    member.client_urls = client_urls.to_vec();
    Ok(())
}

/// Carries out a change that stands in the entry at `index`, and returns the member as it is wanted now.
pub(crate) fn change(
    members: &mut BTreeMap<NodeId, Member>,
    change: &MemberChange,
    index: Index,
) -> Result<Member, Rejection> {
    match change {
        MemberChange::Add { peer_urls, wanted, replaces } => {
            add(members, peer_urls, *wanted, *replaces, new_id(index))
        }
        MemberChange::Join { name, peer_urls, disk_id, wanted } => {
            join(members, Joining { name, peer_urls, disk_id: *disk_id, wanted: *wanted }, new_id(index))
        }
        MemberChange::Update { id, peer_urls } => {
            check_addresses(members, peer_urls, |member| member.id == *id)?;
            let member = wanted_member(members, *id)?;
            member.peer_urls = peer_urls.clone();
            Ok(member.clone())
        }
        MemberChange::Promote { id } => {
            let member = wanted_member(members, *id)?;
            member.wanted = Wanted::Voter;
            Ok(member.clone())
        }
        MemberChange::Remove { id } => remove(members, *id),
    }
}

fn wanted_member(members: &mut BTreeMap<NodeId, Member>, id: NodeId) -> Result<&mut Member, Rejection> {
    let member = members.get_mut(&id).ok_or(Rejection::MemberNotFound(id))?;
    if member.is_wanted() { Ok(member) } else { Err(Rejection::MemberRemoved(id)) }
}

fn check_addresses(
    members: &BTreeMap<NodeId, Member>,
    peer_urls: &[String],
    may_share: impl Fn(&Member) -> bool,
) -> Result<(), Rejection> {
    let others = members.values().filter(|member| member.is_wanted() && !may_share(member));
    for other in others {
        if let Some(url) = other.peer_urls.iter().find(|url| peer_urls.contains(url)) {
            return Err(Rejection::MemberTaken { what: url.clone(), member: other.id });
        }
    }
    Ok(())
}

fn check_room(members: &BTreeMap<NodeId, Member>) -> Result<(), Rejection> {
    let count = members.values().filter(|member| member.is_wanted()).count();
    if count >= limits::MEMBERS_MAX { Err(Rejection::TooManyMembers(count)) } else { Ok(()) }
}

fn add(
    members: &mut BTreeMap<NodeId, Member>,
    peer_urls: &[String],
    wanted: Wanted,
    replaces: Option<NodeId>,
    id: NodeId,
) -> Result<Member, Rejection> {
    if let Some(replaced) = replaces {
        wanted_member(members, replaced)?;
        // The same replacement once more: whoever asks was interrupted.
        let known = members.values().find(|member| member.is_wanted() && member.replaces == replaces);
        if let Some(known) = known.filter(|known| known.peer_urls == peer_urls) {
            return Ok(known.clone());
        }
    }
    // A member whose disk is lost is replaced at its own address.
    check_addresses(members, peer_urls, |member| Some(member.id) == replaces)?;
    check_room(members)?;
    let (name, client_urls) = (String::new(), Vec::new());
    let member =
        Member { id, name, peer_urls: peer_urls.to_vec(), client_urls, disk_id: 0, wanted, replaces };
    members.insert(id, member.clone());
    Ok(member)
}

struct Joining<'a> {
    name: &'a str,
    peer_urls: &'a [String],
    disk_id: u64,
    wanted: Wanted,
}

fn join(
    members: &mut BTreeMap<NodeId, Member>,
    joining: Joining<'_>,
    new_id: NodeId,
) -> Result<Member, Rejection> {
    if let Some(known) = members.values().find(|member| member.disk_id == joining.disk_id) {
        // Asked before, and the answer was lost.
        return if known.is_wanted() { Ok(known.clone()) } else { Err(Rejection::MemberRemoved(known.id)) };
    }
    let shares = |member: &Member| member.peer_urls.iter().any(|url| joining.peer_urls.contains(url));
    let awaited = members.values().find(|member| member.is_wanted() && member.is_awaited() && shares(member));
    let (id, wanted, replaces) = match awaited {
        Some(awaited) => (awaited.id, awaited.wanted, awaited.replaces),
        None => {
            check_room(members)?;
            (new_id, joining.wanted, None)
        }
    };
    let may_share = |member: &Member| member.id == id || Some(member.id) == replaces;
    check_addresses(members, joining.peer_urls, may_share)?;
    let named = members.values().filter(|member| member.is_wanted() && !may_share(member));
    if let Some(other) = named.into_iter().find(|member| member.name == joining.name) {
        return Err(Rejection::MemberTaken { what: joining.name.to_owned(), member: other.id });
    }
    let member = Member {
        id,
        name: joining.name.to_owned(),
        peer_urls: joining.peer_urls.to_vec(),
        client_urls: Vec::new(),
        disk_id: joining.disk_id,
        wanted,
        replaces,
    };
    members.insert(id, member.clone());
    Ok(member)
}

fn remove(members: &mut BTreeMap<NodeId, Member>, id: NodeId) -> Result<Member, Rejection> {
    let member = wanted_member(members, id)?;
    member.wanted = Wanted::Removed;
    let member = member.clone();
    if member.is_awaited() {
        // It never was anybody.
        members.remove(&id);
    }
    Ok(member)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(host: &str) -> Vec<String> {
        vec![format!("http://{host}:2380")]
    }

    fn founders() -> BTreeMap<NodeId, Member> {
        let mut members = BTreeMap::new();
        for (id, name) in [(1, "a"), (2, "b"), (3, "c")] {
            publish(&mut members, NodeId(id), name, &url(name), &url(name)).expect("they are new");
        }
        members
    }

    fn join_as(name: &str, host: &str, disk_id: u64) -> MemberChange {
        MemberChange::Join { name: name.to_owned(), peer_urls: url(host), disk_id, wanted: Wanted::Voter }
    }

    #[test]
    fn a_node_that_asks_twice_is_one_member() {
        let mut members = founders();
        let first = change(&mut members, &join_as("d", "d", 9), Index(10)).expect("it is new");
        assert_eq!(first.id, NodeId(2560));
        assert_eq!(change(&mut members, &join_as("d", "d", 9), Index(11)), Ok(first));
        assert_eq!(members.len(), 4);
    }

    #[test]
    fn an_added_member_is_claimed_by_its_address_and_counts_for_nothing_before() {
        let mut members = founders();
        let added = MemberChange::Add { peer_urls: url("d"), wanted: Wanted::Learner, replaces: None };
        let added = change(&mut members, &added, Index(10)).expect("the address is free");
        assert!(added.is_awaited() && added.disk_id == 0);
        let joined = change(&mut members, &join_as("d", "d", 9), Index(11)).expect("it was added");
        assert_eq!((joined.id, joined.wanted, joined.disk_id), (added.id, Wanted::Learner, 9));
    }

    #[test]
    fn an_emptied_disk_under_an_old_name_or_address_is_nobodys() {
        let mut members = founders();
        for (name, host) in [("a", "x"), ("x", "a")] {
            let refused = change(&mut members, &join_as(name, host, 9), Index(10));
            assert!(
                matches!(refused, Err(Rejection::MemberTaken { member: NodeId(1), .. })),
                "{name} at {host}: {refused:?}"
            );
        }
        // Until somebody says that the old one is to be replaced.
        let again =
            MemberChange::Add { peer_urls: url("a"), wanted: Wanted::Voter, replaces: Some(NodeId(1)) };
        let added = change(&mut members, &again, Index(11)).expect("it is replaced at its own address");
        assert_eq!(
            change(&mut members, &again, Index(12)),
            Ok(added.clone()),
            "an interrupted command goes on"
        );
        let joined = change(&mut members, &join_as("a", "a", 9), Index(13)).expect("it is awaited");
        assert_eq!((joined.id, joined.replaces), (added.id, Some(NodeId(1))));
    }

    #[test]
    fn a_removed_member_stays_removed_and_its_address_is_free() {
        let mut members = founders();
        change(&mut members, &MemberChange::Remove { id: NodeId(2) }, Index(10)).expect("it is there");
        let gone = Err(Rejection::MemberRemoved(NodeId(2)));
        assert_eq!(
            publish(&mut members, NodeId(2), "b", &url("b"), &[]),
            Err(Rejection::MemberRemoved(NodeId(2)))
        );
        assert_eq!(change(&mut members, &MemberChange::Promote { id: NodeId(2) }, Index(11)), gone);
        assert_eq!(change(&mut members, &MemberChange::Remove { id: NodeId(2) }, Index(12)), gone);
        change(&mut members, &join_as("b", "b", 9), Index(13))
            .expect("the name and the address are free again");
    }

    #[test]
    fn one_that_never_started_leaves_no_trace() {
        let mut members = founders();
        let add = MemberChange::Add { peer_urls: url("d"), wanted: Wanted::Voter, replaces: None };
        let added = change(&mut members, &add, Index(10)).expect("the address is free");
        assert!(change(&mut members, &add, Index(11)).is_err(), "the address is taken now");
        change(&mut members, &MemberChange::Remove { id: added.id }, Index(12)).expect("it is there");
        assert_eq!(members, founders());
    }

    #[test]
    fn there_is_a_bound() {
        let mut members = BTreeMap::new();
        for disk in 1..=limits::MEMBERS_MAX as u64 {
            let name = format!("m{disk}");
            change(&mut members, &join_as(&name, &name, disk), Index(disk)).expect("there is room");
        }
        let refused = change(&mut members, &join_as("z", "z", 9_999), Index(9_999));
        assert_eq!(refused, Err(Rejection::TooManyMembers(limits::MEMBERS_MAX)));
    }
}
