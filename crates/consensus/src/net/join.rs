//! The join channel: a node that belongs to no cluster yet asks one question of a member, and gets one answer.

use std::io;
use std::sync::Arc;

use ringfence_proto::peers::{JoinReply, JoinRequest, join_reply};

use super::Network;
use super::handshake::{HandshakeError, Local, Session};
use super::serve::Door;
use crate::membership::joining;

/// The asking side.
pub(crate) async fn ask(
    network: &dyn Network,
    local: &Local,
    address: &str,
    request: &JoinRequest,
) -> Result<JoinReply, HandshakeError> {
    let connection = network.connect(address).await?;
    let Session { mut reader, mut writer, .. } = local.dial_to_join(connection).await?;
    writer.send(request).await?;
    Ok(reader.expect().await?)
}

/// The answering side.
pub(super) async fn serve(door: &Arc<Door>, session: Session) -> io::Result<()> {
    let Session { mut reader, mut writer, hello, .. } = session;
    let request: JoinRequest = reader.expect().await?;
    let (name, disk_id) = (&hello.name, hello.disk_id);
    let reply = joining::answer(&door.judge, &door.local.identity, name, disk_id, request).await;
    match &reply {
        join_reply::Reply::Welcome(welcome) => tracing::info!("{name} joins as member {:x}", welcome.node_id),
        join_reply::Reply::NotNow(reason) => {
            tracing::info!("{name} asks to join, and has to ask again: {reason}")
        }
        join_reply::Reply::Refused(reason) => tracing::warn!("{name} asks to join, and is refused: {reason}"),
    }
    writer.send(&JoinReply { reply: Some(reply) }).await
}
