//! Black-box tests: the built program as real processes, asked by real clients.

mod acks;
mod bad_input;
mod causal;
mod detail;
mod etcd_examples;
mod etcd_rust_client;
mod etcdctl;
mod failover;
mod first_light;
mod graceful;
mod impostors;
mod kill_leader;
mod lease_times;
mod leases;
mod lock_run;
mod locks;
mod members;
mod minority;
mod new_history;
mod paused_holder;
mod postgresql;
mod power_cut;
mod rot;
mod sessions;
mod space;
mod stalled_disk;
