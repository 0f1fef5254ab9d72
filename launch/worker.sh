#!/usr/bin/env bash
# shellcheck disable=SC2329 # main calls the functions by the name that it is given
#
# What happens on a worker: setup.sh copies this file into its home, and the other scripts call it over ssh.
#
#   bash xgenmm_worker.sh SLICE setup SHARED DATA checkout | SLICE setup SHARED DATA URL COMMIT
#   bash xgenmm_worker.sh SLICE start [NAME=VALUE ...] -- COMMAND [WORD...]
#                                                 `xgenmm COMMAND WORD...`, detached, unless it runs already
#   bash xgenmm_worker.sh SLICE restart ...       the same, after killing what runs
#   bash xgenmm_worker.sh SLICE status            one line: running | finished | failed CODE | stopped | ready | absent
#   bash xgenmm_worker.sh SLICE logs LINES follow | SLICE logs LINES
#   bash xgenmm_worker.sh SLICE stop SECONDS      SIGTERM, which saves; after SECONDS it says so, at 0 it kills
#
# Every line is marked [SLICE.WORKER]; the last one says "::launch SLICE.WORKER exit CODE".
set -euo pipefail
shopt -s inherit_errexit

CODE=$HOME/xgenmm_jax                 # the checkout
SHARED=$HOME/xgenmm_shared            # TPU_SHARED, where a run has its working folder
STATE=$HOME/xgenmm_launch             # venv, and of the run: log, command, exit, stopped, supervisor's pid; shared
METADATA=http://metadata.google.internal/computeMetadata/v1/instance/attributes
SELF=$(realpath "${BASH_SOURCE[0]}")

main() {
  local command=$1
  shift
  mkdir -p "$STATE"
  case $command in
    setup | start | restart | stop) exec 9>"$STATE/lock" && flock 9 ;; # one at a time, also after a dropped ssh
  esac
  "$command" "$@"
}

fail() {
  echo "$*." >&2
  exit 1
}

# ---------------------------------------------------------------- setting up

setup() {
  local python
  ! is_running || fail "a run is under way; launch/stop.sh first"
  install_tools
  if [[ -e $STATE/data && $(<"$STATE/data") != "$2" ]]; then fusermount -u "$SHARED/data" 2>/dev/null || true; fi
  echo "$1" >"$STATE/shared"
  echo "$2" >"$STATE/data"
  mount_shared "$1"
  mount_data "$2"
  install_code "${@:3}"
  python=$(find_python)
  make -C "$CODE" setup ACCELERATOR=tpu "VENV=$STATE/venv" "PYTHON=$python"
  rm -f "$STATE"/{command,exit,stopped,supervisor}
  echo "ready: $(git -C "$CODE" describe --always --dirty 2>/dev/null || echo 'no commit known')"
}

install_tools() {
  command -v git >/dev/null && command -v make >/dev/null && return
  sudo apt-get update -qq && sudo apt-get install -qq -y git make
}

# The checkout that was copied beside this file, or a commit of a repository.
install_code() {
  rm -rf "$CODE.new"
  if [[ $1 == checkout ]]; then
    mkdir "$CODE.new"
    tar -xzf "$HOME/xgenmm_code.tar.gz" -C "$CODE.new"
  else
    git clone --quiet "$1" "$CODE.new"
    git -C "$CODE.new" checkout --quiet --detach "$2"
  fi
  rm -rf "$CODE"
  mv "$CODE.new" "$CODE"
}

# The images bring Python 3.10, which is too old for JAX; uv fetches one without root.
find_python() {
  local name
  for name in python3.12 python3.11; do
    if "$name" -c 'import ensurepip, venv' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  [[ -x $HOME/.local/bin/uv ]] || curl -LsSf https://astral.sh/uv/install.sh | sh >&2
  "$HOME/.local/bin/uv" python install --quiet 3.12 >&2
  "$HOME/.local/bin/uv" python find 3.12
}

mount_shared() {
  case $1 in
    '') return ;;
    /*) ln -sfn "$1" "$SHARED" ;;
    *)
      mkdir -p "$SHARED"
      if ! mountpoint -q "$SHARED"; then
        if [[ $1 == gs://* ]]; then mount_bucket "${1#gs://}"; else mount_nfs "$1"; fi
      fi
      ;;
  esac
  check_shared "$1"
}

# No cache of names: hosts must see each other's files at once to agree about a checkpoint.
mount_bucket() {
  gcsfuse_mount "$1" "$SHARED" --implicit-dirs --metadata-cache-ttl-secs=0 --metadata-cache-negative-ttl-secs=0
}

# Data do not change, so names and sizes are asked for once and kept, and so are listings: with the caches of runs every
# opening of a record file would ask the bucket (MaxText's setup_gcsfuse.sh mounts data alike). Listed once beforehand,
# they are all there before a run opens its files.
mount_data() {
  [[ -n $1 ]] || return 0
  mkdir -p "$SHARED/data"
  ! mountpoint -q "$SHARED/data" || return 0
  gcsfuse_mount "${1#gs://}" "$SHARED/data" -o ro --implicit-dirs --metadata-cache-ttl-secs=-1 \
    --stat-cache-max-size-mb=-1 --type-cache-max-size-mb=-1 --kernel-list-cache-ttl-secs=-1
  echo "data: $(find "$SHARED/data" -type f | wc -l) files"
}

# gcsfuse_mount BUCKET[/FOLDER] PLACE OPTION...
gcsfuse_mount() {
  local options=("${@:3}")
  [[ $1 != */* ]] || options+=("--only-dir=${1#*/}")
  install_gcsfuse
  gcsfuse "${options[@]}" "${1%%/*}" "$2"
}

install_gcsfuse() {
  ! command -v gcsfuse >/dev/null || return 0
  local keys=/usr/share/keyrings/cloud.google.asc source=https://packages.cloud.google.com/apt
  curl -fsS "$source/doc/apt-key.gpg" | sudo tee "$keys" >/dev/null
  echo "deb [signed-by=$keys] $source gcsfuse-$(lsb_release -c -s) main" | sudo tee /etc/apt/sources.list.d/gcsfuse.list
  sudo apt-get update -qq && sudo apt-get install -qq -y gcsfuse
}

mount_nfs() {
  command -v mount.nfs >/dev/null || { sudo apt-get update -qq && sudo apt-get install -qq -y nfs-common; }
  sudo mount -t nfs "$1" "$SHARED"
}

# Checkpoints are written under another name and renamed when whole: a bucket without hierarchical namespace can't.
check_shared() {
  local probe
  probe=$SHARED/.launch-$(hostname)-$$
  if ! mkdir "$probe.a" || ! : >"$probe.a/file"; then
    fail "TPU_SHARED: '$1' cannot be written to; give the workers' service account the right"
  fi
  if ! mv -T "$probe.a" "$probe.b"; then
    rm -r "$probe.a"
    fail "TPU_SHARED: '$1' cannot rename a folder; give a bucket made with --enable-hierarchical-namespace"
  fi
  rm -r "$probe.b"
}

# ---------------------------------------------------------------- the run

start() {
  local folder=$CODE wanted tick
  [[ -x $STATE/venv/bin/xgenmm && -d $CODE ]] || fail "not set up; launch/setup.sh first"
  wanted=$(printf '%q ' "$@")
  if is_running; then
    [[ $(<"$STATE/command") == "$wanted" ]] || fail "another run is under way: $(<"$STATE/command"); launch/stop.sh first"
    echo "running already"
    return
  fi
  mount_shared "$(<"$STATE/shared")" # again after a reboot
  mount_data "$(<"$STATE/data")"
  [[ ! -e $SHARED ]] || folder=$SHARED
  cd "$folder"
  rm -f "$STATE"/{exit,stopped}
  echo "$wanted" >"$STATE/command"
  setsid nohup bash "$SELF" "$SLICE" supervise "$@" >>"$STATE/log" 2>&1 </dev/null 9>&- &
  echo "$!" >"$STATE/supervisor"
  for ((tick = 0; tick < 100; tick++)); do
    if is_running || [[ -e $STATE/exit ]]; then break; fi
    sleep 0.05
  done
  echo "started in $folder"
}

restart() {
  kill_run
  start "$@"
}

# Outlives ssh, in a session of its own; leaves the run's exit code behind. Python files are those of the checkout.
supervise() {
  local code=0 word words=()
  while [[ $1 != -- ]]; do
    export "${1?}"
    shift
  done
  shift
  for word in "$@"; do
    [[ ${word%%:*} != *.py || ! -f $CODE/${word%%:*} ]] || word=$CODE/$word
    words+=("$word")
  done
  echo "=== $(date -u +%FT%TZ) in $PWD: xgenmm $(printf '%q ' "$@")"
  "$STATE/venv/bin/xgenmm" "${words[@]}" || code=$?
  echo "=== $(date -u +%FT%TZ) exit code $code"
  echo "$code" >"$STATE/exit"
}

# A supervisor's number may be another process's after a reboot, so the command line is looked at.
is_running() {
  local pid
  pid=$(cat "$STATE/supervisor" 2>/dev/null) || return 1
  grep -qzx supervise "/proc/$pid/cmdline" 2>/dev/null
}

status() {
  local last seconds
  last=$(tail -c 2000 "$STATE/log" 2>/dev/null | tr '\r' '\n' | sed '/^[[:space:]]*$/d' | tail -n 1 | cut -c 1-200) || true
  if [[ ! -x $STATE/venv/bin/xgenmm ]]; then
    echo "absent: not set up"
  elif is_running; then
    seconds=$(($(date +%s) - $(stat -c %Y "$STATE/supervisor")))
    echo "running for $seconds s: $last"
  elif [[ -e $STATE/stopped ]]; then
    echo "stopped: $last"
  elif [[ ! -e $STATE/command ]]; then
    echo "ready: no run yet"
  elif [[ ! -e $STATE/exit ]]; then
    echo "failed 137: killed, or the worker was restarted: $last"
  elif [[ $(<"$STATE/exit") == 0 ]]; then
    echo "finished: $last"
  else
    echo "failed $(<"$STATE/exit"): $last"
  fi
}

logs() {
  [[ -e $STATE/log ]] || fail "no log yet; launch/run.sh writes one"
  if [[ ${2-} == follow ]]; then tail -n "$1" -F "$STATE/log"; else tail -n "$1" "$STATE/log"; fi
}

stop() {
  local waited
  is_running || { echo "nothing is running" && return; }
  touch "$STATE/stopped"
  if (($1 == 0)); then
    kill_run
    echo "killed"
    return
  fi
  pkill -TERM -P "$(<"$STATE/supervisor")" || true
  exec 9>&- # the lock: `stop 0` may cut the wait short
  for ((waited = 0; waited < 10 * $1; waited++)); do
    is_running || { echo "stopped with exit code $(cat "$STATE/exit" 2>/dev/null || echo 137)" && return; }
    sleep 0.1
  done
  fail "still running $1 s after SIGTERM; launch/stop.sh --now kills it and loses what was not saved"
}

# The supervisor has its own session: all of the run dies with its group.
kill_run() {
  is_running || return 0
  local pid
  pid=$(<"$STATE/supervisor")
  kill -KILL -- "-$pid" 2>/dev/null || true
  while is_running; do sleep 0.1; done
}

# ---------------------------------------------------------------- the answer

SLICE=$1
if [[ $2 == supervise ]]; then
  supervise "${@:3}"
  exit
fi
# The number that JAX takes for the worker too.
WORKER=$(curl -fsS -H 'Metadata-Flavor: Google' "$METADATA/agent-worker-number")
set +e # not `||`, which would switch it off inside too
(set -e; main "${@:2}") 2>&1 | sed -u "s/^/[$SLICE.$WORKER] /"
code=${PIPESTATUS[0]}
echo "::launch $SLICE.$WORKER exit $code"
exit "$code"
