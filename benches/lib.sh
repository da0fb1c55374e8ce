# Shared by the scripts beside this file: clusters of three nodes on loopback, loads on them, and what they cost.
# Sourced, never run. Every process that a script starts is tracked by its id and gone when the script ends.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BINARY=$ROOT/target/release/ringfence
WORK=
KEEP=no
BASE_PORT=22379

# Clusters by their name: "NAME/0" to "NAME/2" are nodes.
declare -A NODE_PID=() NODE_CLIENT=() NODE_LOG=()
# Other processes under way, such as loads.
declare -A OTHER_PID=()

note() { printf '%s  %s\n' "$(date +%T)" "$*" >&2; }
die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# What the options that all scripts have mean; for their --help.
common_help() {
  cat <<HELP
  --binary PATH      the ringfence binary [default: target/release/ringfence; built if it is not there]
  --work-dir DIR     where the nodes keep their data; it should lie on a real disk [default: a new one below /var/tmp]
  --keep             leave that directory behind
  --base-port N      first of the ports on loopback [default: $BASE_PORT]
  --help             this text
HELP
}

# Takes one of the common options from "$@". Sets TAKEN to the number of words that it took; 0 if it is none of them.
take_common_option() {
  TAKEN=2
  case $1 in
    --binary) BINARY=$(realpath "${2:?--binary needs a path}") ;;
    --work-dir) WORK=${2:?--work-dir needs a directory} ;;
    --base-port) BASE_PORT=${2:?--base-port needs a number} ;;
    --keep) KEEP=yes TAKEN=1 ;;
    --help | -h) usage && exit 0 ;;
    *) TAKEN=0 ;;
  esac
}

# --- the run ------------------------------------------------------------------------------------------------------

begin() {
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  need curl curl
  need jq jq
  if [ ! -x "$BINARY" ]; then
    note "building $BINARY"
    (cd "$ROOT" && cargo build --release -p ringfence) || die "the build failed"
  fi
  if [ -n "$WORK" ]; then
    mkdir -p "$WORK"
    WORK=$(mktemp -d "$WORK/ringfence-bench.XXXXXX")
  else
    WORK=$(mktemp -d /var/tmp/ringfence-bench.XXXXXX)
  fi
  local kind
  kind=$(stat -f -c %T "$WORK")
  case $kind in
    tmpfs | ramfs) note "warning: $WORK is on $kind, where syncs cost nothing; see --work-dir" ;;
  esac
}

clean_up() {
  local code=$? name
  trap - EXIT INT TERM
  for name in "${!NODE_PID[@]}"; do end_process KILL "${NODE_PID[$name]}"; done
  for name in "${!OTHER_PID[@]}"; do end_process KILL "${OTHER_PID[$name]}"; done
  # What was measured before a failure is shown all the same.
  if declare -F conclude >/dev/null; then conclude || true; fi
  if [ -n "$WORK" ] && [ "$KEEP" = no ]; then
    rm -rf "$WORK"
  elif [ -n "$WORK" ]; then
    note "left behind: $WORK"
  fi
  exit "$code"
}

# Ends a child of this shell and waits until it is gone.
end_process() {
  kill "-$1" "$2" 2>/dev/null || true
  wait "$2" 2>/dev/null || true
}

# Makes sure of a command; installs its Debian package where that is possible.
need() {
  local command=$1 package=$2
  command -v "$command" >/dev/null && return
  command -v apt-get >/dev/null || die "$command is missing; install it"
  [ "$(id -u)" = 0 ] || die "$command is missing; install it: apt-get install $package"
  note "installing $package"
  apt-get update >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -y "$package" >&2
}

# Makes sure of etcd and of a package's own service not running beside the measurements.
need_etcd() {
  command -v etcd >/dev/null && return
  need etcd etcd-server
  if command -v systemctl >/dev/null && systemctl is-active --quiet etcd 2>/dev/null; then
    note "stopping the etcd service that the package has started"
    systemctl stop etcd
  fi
}

# --- clusters -----------------------------------------------------------------------------------------------------

# start_cluster CLUSTER ringfence|etcd PORT [FLAG...]: three nodes, ready to serve.
start_cluster() {
  local cluster=$1 system=$2 port=$3 node
  shift 3
  for node in 0 1 2; do start_node "$cluster" "$system" "$port" "$node" "$@"; done
  wait_ready "$cluster"
}

# Starts one node; it does not wait for it. Flags are the system's own.
start_node() {
  local cluster=$1 system=$2 port=$3 node=$4 n members=()
  shift 4
  local name=$cluster/$node dir=$WORK/$cluster/node$node scheme=
  mkdir -p "$WORK/$cluster"
  [ "$system" = etcd ] && scheme=http://
  for n in 0 1 2; do members+=("node$n=${scheme}127.0.0.1:$((port + 10 * n + 1))"); done
  local client=127.0.0.1:$((port + 10 * node)) peer=127.0.0.1:$((port + 10 * node + 1))
  local initial
  initial=$(IFS=,; printf %s "${members[*]}")
  NODE_CLIENT[$name]=$client
  NODE_LOG[$name]=$dir.log
  if [ "$system" = ringfence ]; then
    "$BINARY" serve --name "node$node" --data-dir "$dir" --listen-client "$client" --listen-peer "$peer" \
      --initial-cluster "$initial" "$@" >>"$dir.log" 2>&1 &
  else
    etcd --name "node$node" --data-dir "$dir" --listen-client-urls "http://$client" \
      --advertise-client-urls "http://$client" --listen-peer-urls "http://$peer" \
      --initial-advertise-peer-urls "http://$peer" --initial-cluster "$initial" \
      --quota-backend-bytes $((8 << 30)) "$@" >>"$dir.log" 2>&1 &
  fi
  NODE_PID[$name]=$!
}

# Ends one node, at once (KILL) or in good order (TERM).
stop_node() {
  local name=$1 signal=${2:-TERM}
  end_process "$signal" "${NODE_PID[$name]}"
  unset "NODE_PID[$name]"
}

# Ends all nodes at the same time.
stop_cluster() {
  local cluster=$1 signal=${2:-TERM} node pids=()
  for node in 0 1 2; do pids+=("${NODE_PID[$cluster/$node]}"); done
  kill "-$signal" "${pids[@]}" 2>/dev/null || true
  wait "${pids[@]}" 2>/dev/null || true
  for node in 0 1 2; do unset "NODE_PID[$cluster/$node]"; done
}

endpoints() {
  local cluster=$1
  printf '%s,%s,%s' "${NODE_CLIENT[$cluster/0]}" "${NODE_CLIENT[$cluster/1]}" "${NODE_CLIENT[$cluster/2]}"
}

# One sample of a node's metrics; nothing if it has none. etcd and ringfence name the same facts alike.
metric() {
  curl -sf --max-time 2 "http://${NODE_CLIENT[$1]}/metrics" | awk -v name="$2" '$1 == name { print $2; exit }'
}

# The node that leads: "CLUSTER/N"; fails while there is none.
leader_of() {
  local node
  for node in 0 1 2; do
    if [ -n "${NODE_PID[$1/$node]:-}" ] && [ "$(metric "$1/$node" etcd_server_is_leader)" = 1 ]; then
      printf '%s/%s' "$1" "$node"
      return
    fi
  done
  return 1
}

# Waits until there is a leader and a write is answered.
wait_ready() {
  local cluster=$1 node name deadline=$((SECONDS + 60))
  until leader_of "$cluster" >/dev/null &&
    "$BINARY" --endpoints "$(endpoints "$cluster")" --timeout 2s put bench-ready yes >/dev/null 2>&1; do
    for node in 0 1 2; do
      name=$cluster/$node
      if ! kill -0 "${NODE_PID[$name]}" 2>/dev/null; then
        tail -n 5 "${NODE_LOG[$name]}" >&2
        die "node $name has ended"
      fi
    done
    [ "$SECONDS" -lt "$deadline" ] || die "$cluster has no leader after a minute"
    sleep 0.1
  done
}

# Waits until all nodes show the same revision.
wait_level() {
  local cluster=$1 deadline=$((SECONDS + ${2:-120})) revisions node
  while :; do
    revisions=$(for node in 0 1 2; do metric "$cluster/$node" etcd_debugging_mvcc_current_revision || true; done)
    if [ "$(wc -l <<<"$revisions")" = 3 ] && [ "$(sort -u <<<"$revisions" | wc -l)" = 1 ]; then return; fi
    [ "$SECONDS" -lt "$deadline" ] || die "the nodes of $cluster do not reach the same revision: ${revisions//$'\n'/ }"
    sleep 0.2
  done
}

# Waits until a cluster without load has come to rest: checkpoints, compactions and garbage are done.
wait_idle() {
  local cluster=$1 before after tries
  for tries in $(seq 60); do
    before=$(cpu_ticks "$cluster")
    sleep 0.5
    after=$(cpu_ticks "$cluster")
    # Less than a twentieth of one core for half a second.
    if [ $((after - before)) -le $((tries > 50 ? 10 : 3)) ]; then return; fi
  done
  note "warning: $cluster does not come to rest"
}

# --- what it costs ------------------------------------------------------------------------------------------------

# CPU time of a process in ticks: fields 14 and 15, counted behind the name, which may hold spaces.
ticks_of() { sed 's/.*) //' "/proc/$1/stat" | awk '{ print $12 + $13 }'; }

# CPU time of all nodes in ticks of 10 ms.
cpu_ticks() {
  local node sum=0
  for node in 0 1 2; do sum=$((sum + $(ticks_of "${NODE_PID[$1/$node]}"))); done
  printf '%s' "$sum"
}

# Resident memory of a process in MiB; with `RssAnon` in place of `VmRSS`, without the pages of mapped files.
memory_of() { awk -v field="${2:-VmRSS}:" '$1 == field { printf "%.0f", $2 / 1024 }' "/proc/$1/status"; }

# The largest node's resident memory in MiB.
memory_max() {
  local node most=0 one
  for node in 0 1 2; do
    one=$(memory_of "${NODE_PID[$1/$node]}" "${2:-VmRSS}")
    [ "$one" -le "$most" ] || most=$one
  done
  printf '%s' "$most"
}

# What the machine does beside the measurement: one line.
describe_machine() {
  printf '%s cores, %s, load %s, data on %s\n' "$(nproc)" "$(uname -sr)" "$(cut -d' ' -f1-3 /proc/loadavg)" \
    "$(df --output=source,fstype "$WORK" | tail -1 | tr -s ' ')"
}

# ringfence bench against some endpoints; the object that it prints.
bench() {
  local workload=$1 where=$2
  shift 2
  "$BINARY" --endpoints "$where" bench "$workload" --json "$@"
}

# Stores keys 0 to N-1 once.
preload() {
  local cluster=$1 keys=$2 value_size=${3:-256}
  note "$cluster: storing $keys keys of $value_size bytes"
  bench preload "$(endpoints "$cluster")" --key-count "$keys" --value-size "$value_size" >"$WORK/preload.json" ||
    die "preloading $cluster failed"
  note "$cluster: stored in $(jq -r '.seconds | floor' "$WORK/preload.json") s"
}

# Numbers on standard input, one a line: min, median and max.
spread() {
  sort -g | awk '{ v[NR] = $1 } END { if (NR) { m = NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2
    printf "%s %s %s\n", v[1], m, v[NR] } }'
}
