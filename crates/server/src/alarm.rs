//! Alarms, as etcd's API tells and changes them.

use ringfence_proto::etcdserverpb as etcd;
use ringfence_types::{Alarm, AlarmKind, Command, NodeId, Reply};
use tonic::metadata::MetadataMap;

use crate::deadline;
use crate::served::Served;
use crate::status::Trouble;

/// The alarms that are raised, of the kind and the member that a request names; of all for none.
pub(crate) fn listed(served: &Served, request: &etcd::AlarmRequest) -> Vec<etcd::AlarmMember> {
    let alarms = served.node.view().alarms().into_iter().map(to_wire);
    let asked = |alarm: &etcd::AlarmMember| {
        (request.member_id == 0 || request.member_id == alarm.member_id)
            && (request.alarm() == etcd::AlarmType::None || request.alarm == alarm.alarm)
    };
    alarms.filter(asked).collect()
}

/// Raises or clears an alarm. Tells the alarm, if it is raised or was; to clear one that is not raised is no error, as in
/// etcd.
pub(crate) async fn change(
    served: &Served,
    metadata: &MetadataMap,
    request: &etcd::AlarmRequest,
    raised: bool,
) -> Result<Vec<etcd::AlarmMember>, Trouble> {
    let kind = match request.alarm() {
        etcd::AlarmType::Corrupt => AlarmKind::Corrupt,
        etcd::AlarmType::Nospace => AlarmKind::NoSpace,
        // There is nothing to raise or to clear.
        etcd::AlarmType::None => return Ok(Vec::new()),
    };
    let alarm = Alarm { member: NodeId(request.member_id), kind };
    let view = served.node.view();
    if raised && !view.members().contains_key(&alarm.member) {
        return Err(Trouble::Unsupported("an alarm is about a member, and there is none of that id"));
    }
    if !raised && !view.alarms().contains(&alarm) {
        return Ok(Vec::new());
    }
    let changed =
        served.node.propose(&Command::ChangeAlarm { alarm, raised }, deadline::of(metadata)).await??;
    match changed.reply {
        Reply::Alarms(_) => Ok(vec![to_wire(alarm)]),
        reply => {
            panic!("the reply to a change of alarms is of the command's kind, and this one is {reply:?}")
        }
    }
}

/// What etcd calls an alarm.
pub(crate) fn name(alarm: Alarm) -> &'static str {
    match alarm.kind {
        AlarmKind::Corrupt => "CORRUPT",
        AlarmKind::NoSpace => "NOSPACE",
    }
}

fn to_wire(alarm: Alarm) -> etcd::AlarmMember {
    let kind = match alarm.kind {
        AlarmKind::Corrupt => etcd::AlarmType::Corrupt,
        AlarmKind::NoSpace => etcd::AlarmType::Nospace,
    };
    etcd::AlarmMember { member_id: alarm.member.0, alarm: kind.into() }
}
