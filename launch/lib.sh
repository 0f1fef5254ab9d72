# shellcheck shell=bash
# What the scripts share. Exit codes: 0 done; 1 the pod is not in a state for it; 2 mistyped or not configured; any
# other is gcloud's (255: ssh) or the failed worker's own.
set -euo pipefail

LAUNCH=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
DRY_RUN=

say() { echo "launch: $*." >&2; }

# refuse SENTENCE: the user's mistake, told in one line.
refuse() {
  say "$@"
  exit 2
}

((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) || refuse "got bash $BASH_VERSION, wanted 4.4 or later"
shopt -s inherit_errexit
# shellcheck source=launch/config.sh
source "$LAUNCH/config.sh"
# shellcheck source=launch/topology.sh
source "$LAUNCH/topology.sh"

# take_common_option WORD: whether it was one; every script has these.
take_common_option() {
  case $1 in
    --dry-run) DRY_RUN=1 ;;
    -h | --help) echo "$USAGE" && exit 0 ;;
    *) return 1 ;;
  esac
}

# unknown_word WORD: refuses it, with the usage.
unknown_word() {
  echo "$USAGE" >&2
  refuse "got '$1', which is none of these words"
}

# require_pod: refuses until config.sh says which pod is meant.
require_pod() {
  local name
  for name in TPU_PROJECT TPU_ZONE TPU_NAME; do
    [[ -n ${!name} ]] || refuse "$name is not set; edit launch/config.sh, or put $name=... before the command"
  done
  [[ $TPU_NAME =~ ^[a-z]([a-z0-9-]*[a-z0-9])?$ ]] ||
    refuse "TPU_NAME: got '$TPU_NAME', wanted a letter, then letters, digits or -, all lower case"
  [[ $TPU_SLICES =~ ^[1-9][0-9]*$ ]] || refuse "TPU_SLICES: got '$TPU_SLICES', wanted 1 or more"
  [[ $TPU_TRIES =~ ^[1-9][0-9]*$ ]] || refuse "TPU_TRIES: got '$TPU_TRIES', wanted 1 or more"
  [[ $TPU_CAPACITY =~ ^(spot|reserved|on-demand)$ ]] ||
    refuse "TPU_CAPACITY: got '$TPU_CAPACITY', wanted spot, reserved or on-demand"
  accelerator_type "$TPU_TOPOLOGY" >/dev/null
}

# quoted WORD...: one string that a shell reads as these words.
quoted() {
  local text
  printf -v text '%q ' "$@"
  echo "${text% }"
}

# cloud WORD...: gcloud compute tpus, in the project and zone; with --dry-run the command is printed instead.
cloud() {
  local command=(gcloud compute tpus "$@" "--project=$TPU_PROJECT" "--zone=$TPU_ZONE")
  if [[ -n $DRY_RUN ]]; then quoted "${command[@]}"; else "${command[@]}" </dev/null; fi
}

# back_off TRY: the pause after the TRY-th failure.
back_off() { sleep "$((TPU_BACKOFF_S << ($1 - 1)))"; }

# is_transient CODE ERRORS: whether the failure with this code and this file of messages may go away by itself.
is_transient() {
  (($1 == 255)) && return
  grep -qiE 'UNAVAILABLE|DEADLINE_EXCEEDED|HTTPError 5|timed out|connection (reset|refused|closed|aborted)|lost connection|broken pipe|unable to find the server|max retries exceeded|could not resolve|network is unreachable' "$2"
}

# patiently COMMAND...: again after transient failures, with growing pauses; ends with the command's own exit code.
patiently() {
  local try code errors
  errors=$(mktemp)
  for ((try = 1; ; try++)); do
    code=0
    "$@" 2>"$errors" || code=$?
    cat "$errors" >&2
    if ((code == 0 || try >= TPU_TRIES)) || ! is_transient "$code" "$errors"; then break; fi
    say "try $try of $TPU_TRIES failed with exit code $code, trying again"
    back_off "$try"
  done
  rm -f "$errors"
  return "$code"
}

# described FORMAT KIND NAME: one line of a queued resource or a node; "NONE" where there is none of the name.
described() {
  local answer errors code=0
  errors=$(mktemp)
  answer=$(patiently cloud "$2" describe "$3" "--format=$1" 2>"$errors") || code=$?
  if ((code)) && grep -q NOT_FOUND "$errors"; then
    answer=NONE code=0
  elif ((code)); then
    cat "$errors" >&2
  fi
  rm -f "$errors"
  echo "$answer"
  return "$code"
}

# pod_state: WAITING_FOR_RESOURCES, PROVISIONING, ACTIVE, SUSPENDING, SUSPENDED, FAILED, ..., or NONE.
pod_state() { described 'value(state.state)' queued-resources "$TPU_NAME"; }

# require_active: refuses to go on with a pod that has no workers.
require_active() {
  local state
  [[ -z $DRY_RUN ]] || return 0
  state=$(pod_state)
  [[ $state == ACTIVE ]] && return
  say "'$TPU_NAME' is $state, wanted ACTIVE; launch/create.sh makes it and waits, launch/status.sh looks"
  exit 1
}

# node_name SLICE: as Cloud names the nodes of a queued resource.
node_name() { if ((TPU_SLICES == 1)); then echo "$TPU_NAME"; else echo "$TPU_NAME-$1"; fi; }

# create_pod: asks for the pod; is content where it was asked for already.
create_pod() {
  local code=0 words flags nodes state capacity=()
  read -ra words <<<"$TPU_CREATE_FLAGS"
  mapfile -t flags < <(accelerator_flags "$TPU_TOPOLOGY")
  nodes=("--node-id=$TPU_NAME")
  ((TPU_SLICES == 1)) || nodes=("--node-count=$TPU_SLICES" "--node-prefix=$TPU_NAME")
  [[ $TPU_CAPACITY == on-demand ]] || capacity=("--$TPU_CAPACITY")
  patiently cloud queued-resources create "$TPU_NAME" "${nodes[@]}" "${flags[@]}" \
    "--runtime-version=${TPU_RUNTIME:-$(runtime_version "$TPU_TOPOLOGY")}" "${capacity[@]}" "${words[@]}" || code=$?
  # A try that was cut off may have reached the server.
  if ((code)) && state=$(pod_state) && [[ $state != NONE ]]; then code=0; fi
  return "$code"
}

# delete_pod: the queued resource TPU_NAME and its nodes, and nothing else.
delete_pod() { patiently cloud queued-resources delete "$TPU_NAME" --force --quiet; }

# failure_reason: why a queued resource is FAILED, in Cloud's words.
failure_reason() { described 'value(state.failedData.error.message)' queued-resources "$TPU_NAME"; }

# node_state NODE: CREATING, READY, REPAIRING, PREEMPTED, ..., or NONE.
node_state() { described 'value(state)' tpu-vm "$1"; }
