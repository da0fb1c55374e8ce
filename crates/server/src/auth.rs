//! The Auth service of a server that knows no users: it answers as etcd does where authentication was never turned on and
//! nobody was ever added. What is not there cannot be found, changed or enabled; and nothing can be added, since a user that
//! nobody asks for a password would protect nothing.

use ringfence_proto::etcdserverpb::{self as etcd, auth_server};
use tonic::{Request, Response, Status, async_trait};

use crate::etcd_errors::{self as fixed, Fixed};
use crate::served::Served;
use crate::status::Trouble;

/// The auth store's revision in etcd before the first change of a user or a role.
const AUTH_REVISION_UNCHANGED: u64 = 1;

/// Why a call about users and roles is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuthTrouble {
    /// There are no users, and none can be added.
    NotEnabled,
    /// Authentication cannot be turned on without a user `root`.
    RootUserNotFound,
    /// The user to be added has no name.
    UserNameless,
    /// There is no such user.
    UserNotFound,
    /// The role to be added has no name.
    RoleNameless,
    /// There is no such role.
    RoleNotFound,
    /// A permission is to be granted, and none is named.
    PermissionMissing,
}

impl AuthTrouble {
    /// etcd's error, and the reason as a word and in plain words.
    pub(crate) fn told(self) -> (Fixed, &'static str, &'static str) {
        match self {
            AuthTrouble::NotEnabled => (
                fixed::AUTH_NOT_ENABLED,
                "auth_not_enabled",
                "this server knows no users: whoever reaches its port may do everything",
            ),
            AuthTrouble::RootUserNotFound => (
                fixed::ROOT_USER_NOT_FOUND,
                "root_user_not_found",
                "this server knows no users, so that authentication cannot be turned on",
            ),
            AuthTrouble::UserNameless => (fixed::USER_NAMELESS, "user_nameless", "a user has a name"),
            AuthTrouble::UserNotFound => {
                (fixed::USER_NOT_FOUND, "user_not_found", "this server knows no users")
            }
            AuthTrouble::RoleNameless => (fixed::ROLE_NAMELESS, "role_nameless", "a role has a name"),
            AuthTrouble::RoleNotFound => {
                (fixed::ROLE_NOT_FOUND, "role_not_found", "this server knows no roles")
            }
            AuthTrouble::PermissionMissing => {
                (fixed::PERMISSION_MISSING, "permission_missing", "the call names no permission to grant")
            }
        }
    }
}

/// The service.
pub(crate) struct Auth {
    pub(crate) served: Served,
}

impl Auth {
    fn refuse<T>(&self, trouble: AuthTrouble) -> Result<Response<T>, Status> {
        Err(self.served.status(&Trouble::Auth(trouble)))
    }

    /// What cannot be added; etcd looks at the name first.
    fn add<T>(&self, name: &str, nameless: AuthTrouble) -> Result<Response<T>, Status> {
        self.refuse(if name.is_empty() { nameless } else { AuthTrouble::NotEnabled })
    }
}

#[async_trait]
impl auth_server::Auth for Auth {
    async fn auth_enable(
        &self,
        _: Request<etcd::AuthEnableRequest>,
    ) -> Result<Response<etcd::AuthEnableResponse>, Status> {
        self.refuse(AuthTrouble::RootUserNotFound)
    }

    async fn auth_disable(
        &self,
        _: Request<etcd::AuthDisableRequest>,
    ) -> Result<Response<etcd::AuthDisableResponse>, Status> {
        Ok(Response::new(etcd::AuthDisableResponse { header: Some(self.served.header_now()) }))
    }

    async fn auth_status(
        &self,
        _: Request<etcd::AuthStatusRequest>,
    ) -> Result<Response<etcd::AuthStatusResponse>, Status> {
        Ok(Response::new(etcd::AuthStatusResponse {
            header: Some(self.served.header_now()),
            enabled: false,
            auth_revision: AUTH_REVISION_UNCHANGED,
        }))
    }

    async fn authenticate(
        &self,
        _: Request<etcd::AuthenticateRequest>,
    ) -> Result<Response<etcd::AuthenticateResponse>, Status> {
        self.refuse(AuthTrouble::NotEnabled)
    }

    async fn user_add(
        &self,
        request: Request<etcd::AuthUserAddRequest>,
    ) -> Result<Response<etcd::AuthUserAddResponse>, Status> {
        self.add(&request.get_ref().name, AuthTrouble::UserNameless)
    }

    async fn user_get(
        &self,
        _: Request<etcd::AuthUserGetRequest>,
    ) -> Result<Response<etcd::AuthUserGetResponse>, Status> {
        self.refuse(AuthTrouble::UserNotFound)
    }

    async fn user_list(
        &self,
        _: Request<etcd::AuthUserListRequest>,
    ) -> Result<Response<etcd::AuthUserListResponse>, Status> {
        let header = Some(self.served.header_now());
        Ok(Response::new(etcd::AuthUserListResponse { header, users: Vec::new() }))
    }

    async fn user_delete(
        &self,
        _: Request<etcd::AuthUserDeleteRequest>,
    ) -> Result<Response<etcd::AuthUserDeleteResponse>, Status> {
        self.refuse(AuthTrouble::UserNotFound)
    }

    async fn user_change_password(
        &self,
        _: Request<etcd::AuthUserChangePasswordRequest>,
    ) -> Result<Response<etcd::AuthUserChangePasswordResponse>, Status> {
        self.refuse(AuthTrouble::UserNotFound)
    }

    async fn user_grant_role(
        &self,
        _: Request<etcd::AuthUserGrantRoleRequest>,
    ) -> Result<Response<etcd::AuthUserGrantRoleResponse>, Status> {
        self.refuse(AuthTrouble::UserNotFound)
    }

    async fn user_revoke_role(
        &self,
        _: Request<etcd::AuthUserRevokeRoleRequest>,
    ) -> Result<Response<etcd::AuthUserRevokeRoleResponse>, Status> {
        self.refuse(AuthTrouble::UserNotFound)
    }

    async fn role_add(
        &self,
        request: Request<etcd::AuthRoleAddRequest>,
    ) -> Result<Response<etcd::AuthRoleAddResponse>, Status> {
        self.add(&request.get_ref().name, AuthTrouble::RoleNameless)
    }

    async fn role_get(
        &self,
        _: Request<etcd::AuthRoleGetRequest>,
    ) -> Result<Response<etcd::AuthRoleGetResponse>, Status> {
        self.refuse(AuthTrouble::RoleNotFound)
    }

    async fn role_list(
        &self,
        _: Request<etcd::AuthRoleListRequest>,
    ) -> Result<Response<etcd::AuthRoleListResponse>, Status> {
        let header = Some(self.served.header_now());
        Ok(Response::new(etcd::AuthRoleListResponse { header, roles: Vec::new() }))
    }

    async fn role_delete(
        &self,
        _: Request<etcd::AuthRoleDeleteRequest>,
    ) -> Result<Response<etcd::AuthRoleDeleteResponse>, Status> {
        self.refuse(AuthTrouble::RoleNotFound)
    }

    async fn role_grant_permission(
        &self,
        request: Request<etcd::AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<etcd::AuthRoleGrantPermissionResponse>, Status> {
        self.refuse(match request.get_ref().perm {
            None => AuthTrouble::PermissionMissing,
            Some(_) => AuthTrouble::RoleNotFound,
        })
    }

    async fn role_revoke_permission(
        &self,
        _: Request<etcd::AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<etcd::AuthRoleRevokePermissionResponse>, Status> {
        self.refuse(AuthTrouble::RoleNotFound)
    }
}
