//! The Auth service: it answers as etcd's does where there are no users.

use ringfence_proto::authpb::Permission;
use ringfence_proto::etcdserverpb::auth_client::AuthClient;
use ringfence_proto::etcdserverpb::{self as etcd};
use tonic::Code;

use crate::harness::{Server, assert_refused};

const NOT_ENABLED: &str = "etcdserver: authentication is not enabled";
const USER_NOT_FOUND: &str = "etcdserver: user name not found";
const ROLE_NOT_FOUND: &str = "etcdserver: role name not found";

fn name() -> String {
    "root".to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn authentication_is_off_and_stays_off() {
    let server = Server::start().await;
    let mut auth = AuthClient::new(server.channel.clone());
    let status = auth.auth_status(etcd::AuthStatusRequest {}).await.unwrap().into_inner();
    assert!(!status.enabled);
    assert_eq!(status.header.unwrap().member_id, server.node.node_id().0);
    auth.auth_disable(etcd::AuthDisableRequest {}).await.expect("it is off");
    let enabled = auth.auth_enable(etcd::AuthEnableRequest {}).await;
    assert_refused(enabled, Code::FailedPrecondition, "etcdserver: root user does not exist");
    let asked = etcd::AuthenticateRequest { name: name(), password: "secret".to_owned() };
    assert_refused(auth.authenticate(asked).await, Code::FailedPrecondition, NOT_ENABLED);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_there_and_nobody_can_be_added() {
    let server = Server::start().await;
    let mut auth = AuthClient::new(server.channel.clone());
    let (precondition, invalid) = (Code::FailedPrecondition, Code::InvalidArgument);
    let add = |name| etcd::AuthUserAddRequest { name, ..Default::default() };
    assert_refused(auth.user_add(add(name())).await, precondition, NOT_ENABLED);
    assert_refused(auth.user_add(add(String::new())).await, invalid, "etcdserver: user name is empty");
    let users = auth.user_list(etcd::AuthUserListRequest {}).await.unwrap().into_inner();
    assert!(users.users.is_empty());
    assert_refused(
        auth.user_get(etcd::AuthUserGetRequest { name: name() }).await,
        precondition,
        USER_NOT_FOUND,
    );
    let deleted = auth.user_delete(etcd::AuthUserDeleteRequest { name: name() }).await;
    assert_refused(deleted, precondition, USER_NOT_FOUND);
    let change = etcd::AuthUserChangePasswordRequest { name: name(), ..Default::default() };
    assert_refused(auth.user_change_password(change).await, precondition, USER_NOT_FOUND);
    let grant = etcd::AuthUserGrantRoleRequest { user: name(), role: name() };
    assert_refused(auth.user_grant_role(grant).await, precondition, USER_NOT_FOUND);
    let revoke = etcd::AuthUserRevokeRoleRequest { name: name(), role: name() };
    assert_refused(auth.user_revoke_role(revoke).await, precondition, USER_NOT_FOUND);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_no_roles_and_none_can_be_added() {
    let server = Server::start().await;
    let mut auth = AuthClient::new(server.channel.clone());
    let (precondition, invalid) = (Code::FailedPrecondition, Code::InvalidArgument);
    let add = |name| etcd::AuthRoleAddRequest { name };
    assert_refused(auth.role_add(add(name())).await, precondition, NOT_ENABLED);
    assert_refused(auth.role_add(add(String::new())).await, invalid, "etcdserver: role name is empty");
    let roles = auth.role_list(etcd::AuthRoleListRequest {}).await.unwrap().into_inner();
    assert!(roles.roles.is_empty());
    assert_refused(
        auth.role_get(etcd::AuthRoleGetRequest { role: name() }).await,
        precondition,
        ROLE_NOT_FOUND,
    );
    let deleted = auth.role_delete(etcd::AuthRoleDeleteRequest { role: name() }).await;
    assert_refused(deleted, precondition, ROLE_NOT_FOUND);
    let grant = |perm| etcd::AuthRoleGrantPermissionRequest { name: name(), perm };
    let nothing = auth.role_grant_permission(grant(None)).await;
    assert_refused(nothing, invalid, "etcdserver: permission not given");
    let granted = auth.role_grant_permission(grant(Some(Permission::default()))).await;
    assert_refused(granted, precondition, ROLE_NOT_FOUND);
    let revoke = etcd::AuthRoleRevokePermissionRequest { role: name(), ..Default::default() };
    assert_refused(auth.role_revoke_permission(revoke).await, precondition, ROLE_NOT_FOUND);
    server.stop().await;
}
