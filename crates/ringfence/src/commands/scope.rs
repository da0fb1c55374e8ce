//! Scopes and fences as they are written on a command line: `lock:NAME`, `key:KEY`, or the name of a lock alone, and
//! `SCOPE=TOKEN`.

use std::str::FromStr;

use bytes::Bytes;
use clap::Args;
use ringfence_proto::ringfence_v1 as v1;
use ringfence_types::Scope;

/// Fences that a write carries.
#[derive(Debug, Args)]
pub(crate) struct FenceArgs {
    /// Do it only while this token is in force for this scope: a lock by its name (or lock:NAME), or key:KEY. May be given
    /// several times; all of them must hold.
    #[arg(long = "fence", value_name = "SCOPE=TOKEN")]
    fences: Vec<FenceArg>,
}

impl FenceArgs {
    /// The fences as requests carry them.
    pub(crate) fn to_messages(&self) -> Vec<v1::Fence> {
        let message =
            |fence: &FenceArg| v1::Fence { scope: Some(fence.scope.to_message()), token: fence.token };
        self.fences.iter().map(message).collect()
    }
}

/// A scope with a token.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FenceArg {
    scope: ScopeArg,
    token: i64,
}

impl FromStr for FenceArg {
    type Err = String;

    fn from_str(text: &str) -> Result<FenceArg, String> {
        // The name of a scope may hold the sign itself.
        let (scope, token) =
            text.rsplit_once('=').ok_or("write a scope, \"=\" and a token, such as jobs=17")?;
        match token.parse() {
            Ok(token) if token > 0 => Ok(FenceArg { scope: scope.parse()?, token }),
            _ => Err(format!("{token:?} is no token: tokens are whole numbers above 0")),
        }
    }
}

/// What a fence is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ScopeArg(Scope);

impl ScopeArg {
    /// The scope as requests carry it.
    pub(crate) fn to_message(&self) -> v1::Scope {
        ringfence_proto::extension::scope_message(&self.0)
    }
}

impl FromStr for ScopeArg {
    type Err = String;

    fn from_str(text: &str) -> Result<ScopeArg, String> {
        let (kind, name): (fn(Bytes) -> Scope, &str) = match text.split_once(':') {
            Some(("key", key)) => (Scope::Key, key),
            Some(("lock", name)) => (Scope::Lock, name),
            _ => (Scope::Lock, text),
        };
        if name.is_empty() {
            return Err("the scope has no name; write a lock's name, lock:NAME or key:KEY".to_owned());
        }
        Ok(ScopeArg(kind(Bytes::copy_from_slice(name.as_bytes()))))
    }
}

impl std::fmt::Display for ScopeArg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A scope of an answer in words.
pub(crate) fn shown_scope(scope: Option<&v1::Scope>) -> String {
    match scope.and_then(|scope| scope.kind.clone()) {
        Some(v1::scope::Kind::Key(key)) => Scope::Key(key).to_string(),
        Some(v1::scope::Kind::Lock(name)) => Scope::Lock(name).to_string(),
        None => "(of a kind that this version does not know)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_without_a_kind_is_a_lock() {
        let lock = |name: &'static str| Some(Scope::Lock(name.into()));
        for (text, expected) in [
            ("jobs", lock("jobs")),
            ("lock:jobs", lock("jobs")),
            ("lock:key:jobs", lock("key:jobs")),
            ("a:b", lock("a:b")),
            ("key:k", Some(Scope::Key("k".into()))),
            ("", None),
            ("key:", None),
            ("lock:", None),
        ] {
            assert_eq!(text.parse::<ScopeArg>().ok().map(|scope| scope.0), expected, "{text:?}");
        }
    }

    #[test]
    fn a_fence_is_a_scope_and_a_token_above_zero() {
        let fence = "a=b=17".parse::<FenceArg>().unwrap();
        assert_eq!((fence.scope.to_string().as_str(), fence.token), ("lock:a=b", 17));
        for text in ["jobs", "jobs=", "jobs=0", "jobs=-1", "jobs=x", "=5", "jobs=99999999999999999999"] {
            assert!(text.parse::<FenceArg>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_scope_is_shown_as_it_is_written() {
        let scope = "key:leader".parse::<ScopeArg>().unwrap();
        assert_eq!(shown_scope(Some(&scope.to_message())), "key:leader");
    }
}
