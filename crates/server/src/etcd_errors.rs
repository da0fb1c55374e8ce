//! etcd's fixed error replies, as far as this server gives them. Clients recognise an error by its message, so code and
//! message are both part of the protocol; `etcd_errors.txt` is the protocol's whole list.

use tonic::Code;

/// A gRPC code with its message.
pub(crate) type Fixed = (Code, &'static str);

macro_rules! fixed {
    ($($name:ident = $code:ident $message:literal;)*) => {
        $(pub(crate) const $name: Fixed = (Code::$code, $message);)*

        /// All of them, for the test that none is invented.
        #[cfg(test)]
        pub(crate) const ALL: &[Fixed] = &[$($name),*];
    };
}

fixed! {
    EMPTY_KEY = InvalidArgument "etcdserver: key is not provided";
    KEY_NOT_FOUND = InvalidArgument "etcdserver: key not found";
    VALUE_PROVIDED = InvalidArgument "etcdserver: value is provided";
    LEASE_PROVIDED = InvalidArgument "etcdserver: lease is provided";
    TOO_MANY_OPERATIONS = InvalidArgument "etcdserver: too many operations in txn request";
    DUPLICATE_KEY = InvalidArgument "etcdserver: duplicate key given in txn request";
    INVALID_SORT_OPTION = InvalidArgument "etcdserver: invalid sort option";
    COMPACTED = OutOfRange "etcdserver: mvcc: required revision has been compacted";
    FUTURE_REVISION = OutOfRange "etcdserver: mvcc: required revision is a future revision";
    NO_SPACE = ResourceExhausted "etcdserver: mvcc: database space exceeded";
    LEASE_NOT_FOUND = NotFound "etcdserver: requested lease not found";
    LEASE_EXISTS = FailedPrecondition "etcdserver: lease already exists";
    LEASE_TTL_TOO_LARGE = OutOfRange "etcdserver: too large lease TTL";
    PEER_URL_EXISTS = FailedPrecondition "etcdserver: Peer URLs already exists";
    MEMBER_NOT_ENOUGH_STARTED = FailedPrecondition "etcdserver: re-configuration failed due to not enough started members";
    MEMBER_BAD_URLS = InvalidArgument "etcdserver: given member URLs are invalid";
    MEMBER_NOT_FOUND = NotFound "etcdserver: member not found";
    MEMBER_NOT_LEARNER = FailedPrecondition "etcdserver: can only promote a learner member";
    LEARNER_NOT_READY = FailedPrecondition "etcdserver: can only promote a learner member which is in sync with leader";
    TOO_MANY_LEARNERS = FailedPrecondition "etcdserver: too many learner members in cluster";
    REQUEST_TOO_LARGE = InvalidArgument "etcdserver: request is too large";
    TOO_MANY_REQUESTS = ResourceExhausted "etcdserver: too many requests";
    ROOT_USER_NOT_FOUND = FailedPrecondition "etcdserver: root user does not exist";
    USER_NAMELESS = InvalidArgument "etcdserver: user name is empty";
    USER_NOT_FOUND = FailedPrecondition "etcdserver: user name not found";
    ROLE_NAMELESS = InvalidArgument "etcdserver: role name is empty";
    ROLE_NOT_FOUND = FailedPrecondition "etcdserver: role name not found";
    PERMISSION_MISSING = InvalidArgument "etcdserver: permission not given";
    AUTH_NOT_ENABLED = FailedPrecondition "etcdserver: authentication is not enabled";
    NO_LEADER = Unavailable "etcdserver: no leader";
    NOT_LEADER = FailedPrecondition "etcdserver: not leader";
    NOT_CAPABLE = FailedPrecondition "etcdserver: not capable";
    STOPPED = Unavailable "etcdserver: server stopped";
    TIMEOUT = Unavailable "etcdserver: request timed out";
    TIMEOUT_LEADER_FAILED = Unavailable "etcdserver: request timed out, possibly due to previous leader failure";
    TIMEOUT_CONNECTION_LOST = Unavailable "etcdserver: request timed out, possibly due to connection lost";
    CORRUPT = DataLoss "etcdserver: corrupt cluster";
    UNHEALTHY = Unavailable "etcdserver: unhealthy cluster";
    BAD_TRANSFEREE = FailedPrecondition "etcdserver: bad leader transferee";
    WRONG_DOWNGRADE_FORMAT = InvalidArgument "etcdserver: wrong downgrade target version format";
    INVALID_DOWNGRADE_TARGET = InvalidArgument "etcdserver: invalid downgrade target version";
    DEADLINE_EXCEEDED = DeadlineExceeded "etcdserver: context deadline exceeded";
    NO_DOWNGRADE = FailedPrecondition "etcdserver: no inflight downgrade job";
}

#[cfg(test)]
mod tests {
    use super::ALL;

    #[test]
    fn every_fixed_error_is_one_of_the_protocols() {
        let known: Vec<(&str, &str)> =
            include_str!("etcd_errors.txt").lines().filter_map(|line| line.split_once('\t')).collect();
        assert!(known.len() > ALL.len(), "the list is not empty by mistake");
        for (code, message) in ALL {
            assert!(known.contains(&(&*format!("{code:?}"), *message)), "{code:?} {message}");
        }
    }
}
