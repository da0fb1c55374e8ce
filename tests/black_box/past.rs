//! What was: the versions of a key, what changed between two revisions, and what is forgotten for good.

use ringfence_tests::cluster::Cluster;
use serde_json::Value;

/// Revisions 2 to 8 of a cluster that has nothing else.
fn cluster_with_a_past() -> Cluster {
    let cluster = Cluster::start(1);
    for (key, value) in [("p/a", "1"), ("p/a", "2"), ("p/b", "x")] {
        drop(cluster.run(["put", key, value]).succeeded());
    }
    drop(cluster.run(["del", "p/a"]).succeeded());
    for (key, value) in [("p/a", "3"), ("q", "far"), ("p/c", "new")] {
        drop(cluster.run(["put", key, value]).succeeded());
    }
    cluster
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

#[test]
fn a_keys_versions_are_shown_until_they_are_compacted() {
    let cluster = cluster_with_a_past();
    let table = cluster.run(["history", "p/a"]).succeeded();
    let expected = "\
REVISION  VERSION  CREATED  LEASE  SIZE  VALUE
6         1        6        -      1     3
5         -        -        -      -     (deleted)
3         2        2        -      1     2
2         1        2        -      1     1
";
    assert_eq!(table, expected);
    assert_eq!(cluster.run(["history", "p/a", "--output=plain"]).line(), "6\n5\n3\n2");
    assert_eq!(cluster.run(["history", "p/a", "--rev=4", "--output=plain"]).line(), "3\n2");
    let limited = cluster.run(["history", "p/a", "--limit=2"]).succeeded();
    assert!(limited.ends_with("(there are older versions: raise --limit)\n"), "{limited}");
    let told = cluster.run(["history", "p/a", "--output=json"]).json();
    assert_eq!((&told["revision"], &told["compacted"], &told["more"]), (&8.into(), &0.into(), &false.into()));
    let versions = told["versions"].as_array().expect("it tells them");
    assert_eq!(versions.len(), 4);
    assert_eq!((&versions[1]["deleted"], &versions[1]["mod_revision"]), (&true.into(), &5.into()));
    assert_eq!((&versions[2]["value"], &versions[2]["create_revision"]), (&"2".into(), &2.into()));
    cluster.run(["history", "p/absent"]).failed(3, &["no version"]);
    cluster.run(["history", "p/a", "--rev=99"]).failed(4, &["future revision"]);
    cluster.run(["history", ""]).failed(4, &["key"]);

    assert_eq!(
        cluster.run(["compact", "5", "--physical"]).line(),
        "compacted: the oldest revision that can be read is 5"
    );
    let rest = cluster.run(["history", "p/a"]).succeeded();
    assert!(rest.ends_with("1     3\n(what was before revision 5 has been compacted)\n"), "{rest}");
    assert_eq!(rest.lines().count(), 3, "{rest}");
    cluster.run(["history", "p/a", "--rev=4"]).failed(4, &["compacted", "oldest readable one is 5"]);
}

#[test]
fn a_difference_is_each_key_that_changed_between_two_revisions() {
    let cluster = cluster_with_a_past();
    let ran = cluster.run(["diff", "--from=3", "--to=7"]);
    assert!(ran.stderr.contains("2 created, 1 changed, 0 deleted from revision 3 to 7"), "{}", ran.stderr);
    assert_eq!(ran.succeeded(), "~ p/a  2 -> 3\n+ p/b  x\n+ q  far\n");
    assert_eq!(cluster.run(["diff", "--from=4", "--to=5"]).succeeded(), "- p/a  2\n");
    assert_eq!(cluster.run(["diff", "--from=8"]).succeeded(), "");
    let prefix = cluster.run(["diff", "--from=5", "--prefix=p/", "--output=plain"]);
    assert_eq!(prefix.line(), "created p/a\ncreated p/c");
    let keys = cluster.run(["diff", "--from=3", "--keys-only"]);
    assert_eq!(keys.succeeded(), "~ p/a\n+ p/b\n+ p/c\n+ q\n");
    let told = lines(&cluster.run(["diff", "--from=3", "--to=5", "--output=json"]).succeeded());
    assert_eq!(told.len(), 2);
    assert_eq!((&told[0]["difference"], &told[0]["to"]), (&"deleted".into(), &Value::Null));
    assert_eq!(told[0]["from"]["value"], "2");
    assert_eq!((&told[1]["difference"], &told[1]["from"]), (&"created".into(), &Value::Null));
    assert_eq!(told[1]["to"]["key"], "p/b");

    cluster.run(["diff", "--from=7", "--to=3"]).failed(2, &["--from 7"]);
    cluster.run(["diff", "--from=3", "--to=99"]).failed(4, &["future revision"]);
    drop(cluster.run(["compact", "4"]).succeeded());
    cluster.run(["diff", "--from=3"]).failed(4, &["compacted"]);
}

#[test]
fn a_difference_of_many_keys_is_read_piece_by_piece() {
    let cluster = Cluster::start(1);
    let records: String =
        (0..25_000).map(|n| format!("{{\"key\":\"k/{n:05}\",\"value\":\"v\"}}\n")).collect();
    let from = cluster.run(["put", "before", "1", "--output=json"]).json()["revision"].to_string();
    assert_eq!(cluster.run_with_input(["import", "-", "--output=plain"], &records).line(), "25000");
    let ran = cluster.run(["diff", &format!("--from={from}"), "--output=plain"]);
    assert!(ran.stderr.contains("25000 created, 0 changed, 0 deleted"), "{}", ran.stderr);
    let said = ran.succeeded();
    let keys: Vec<&str> = said.lines().collect();
    assert_eq!((keys.len(), keys[0], keys[24_999]), (25_000, "created k/00000", "created k/24999"));
    assert!(keys.is_sorted(), "they come in the order of the keys");
}

#[test]
fn compaction_keeps_what_it_is_told_to_keep() {
    let cluster = cluster_with_a_past();
    assert!(cluster.run(["compact", "--keep=8"]).line().starts_with("nothing to compact"));
    drop(cluster.run(["get", "p/a", "--rev=2"]).succeeded());
    assert_eq!(cluster.run(["compact", "--keep=3", "--output=json"]).json()["compacted"], 6);
    cluster.run(["get", "p/a", "--rev=5"]).failed(4, &["compacted"]);
    drop(cluster.run(["get", "p/a", "--rev=6"]).succeeded());
    // Doing it again forgets nothing more, and is no failure.
    assert_eq!(cluster.run(["compact", "--keep=3", "--output=plain"]).line(), "0");
    cluster.run(["compact", "6"]).failed(4, &["compacted"]);
    cluster.run(["compact", "99"]).failed(4, &["future revision"]);
}
